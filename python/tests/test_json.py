"""Documents keep their values, and what JSON does not have is refused with its location."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
from pathlib import Path

import pytest

import mandelbox
from mandelbox import _json


class Color(str, enum.Enum):
    RED = "red"


def test_what_is_accepted() -> None:
    value = {
        "tuple": (1, 2),
        "path": Path("/a/b"),
        Color.RED: Color.RED,
        "none": None,
        "text": 'ä"\\\n\ud83d\ude00',
        "bools": [True, False],
    }
    expected = {
        "tuple": [1, 2],
        "path": "/a/b",
        "red": "red",
        "none": None,
        "text": 'ä"\\\n\ud83d\ude00',
        "bools": [True, False],
    }
    assert json.loads(_json.dumps(value, "x")) == expected


def test_numbers_keep_their_values() -> None:
    for text in ("18446744073709551616", "-1", "0.1", "1e300", "5e-324", "0.30000000000000000001"):
        value = _json.loads(text)
        assert _json.dumps(value, "x") == text
        for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert _json.dumps(other, "x") == _json.dumps(value, "x")
    assert _json.loads("0.30000000000000000001") + 0.0 == 0.3
    assert float(_json.dumps(math.pi, "x")) == math.pi


def test_scalars_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    value = {"a": np.float32(0.5), "b": np.int64(2**62), "c": np.bool_(True), "d": np.float64(0.1)}
    assert json.loads(_json.dumps(value, "x")) == {"a": 0.5, "b": 2**62, "c": True, "d": 0.1}
    with pytest.raises(mandelbox.DocumentsError, match="numpy.ndarray"):
        _json.dumps({"a": np.zeros(3)}, "x")


def test_every_bad_value_is_named_with_its_place() -> None:
    bad = {"a": [1, float("nan")], "b/c": {"d": object()}, 3: 4, "e": {"f": float("inf")}}
    with pytest.raises(mandelbox.DocumentsError) as raised:
        _json.dumps(bad, "metadata")
    found = [(problem.pointer, problem.file) for problem in raised.value.problems]
    assert found == [("/a/1", "metadata"), ("/b~1c/d", "metadata"), ("", "metadata"), ("/e/f", "metadata")]
    assert "metadata: /a/1: JSON has no nan" in str(raised.value)
    deep: list[object] = []
    for _ in range(1000):
        deep = [deep]
    with pytest.raises(mandelbox.DocumentsError, match="nested deeper than 256"):
        _json.dumps(deep, "x")


def test_a_document_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1,\n x}')
    with pytest.raises(mandelbox.DocumentsError) as raised:
        mandelbox.load(tmp_path / "a.json")
    assert (raised.value.problems[0].line, raised.value.problems[0].column) == (2, 2)
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(mandelbox.DocumentsError, match="must contain a JSON object"):
        mandelbox.load(tmp_path / "b.json")
    with pytest.raises(ValueError, match="cannot be read"):
        mandelbox.load(tmp_path / "none.json")


def test_exceptions_survive_pickle() -> None:
    problem = mandelbox.Problem("m", "p", "f", "/x")
    documents = pickle.loads(pickle.dumps(mandelbox.DocumentsError([problem])))
    assert documents.problems == [problem]
    host = pickle.loads(pickle.dumps(mandelbox.HostError("text", 28, "/full")))
    assert (host.errno, host.filename, str(host)) == (28, "/full", "text")
    assert isinstance(host, OSError)
