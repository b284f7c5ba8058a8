"""Calls a function: the request is JSON on stdin, the answer JSON at the end of stdout.

The counterpart is ``mandelbox.SandboxExecutor``.
"""

import importlib
import importlib.util
import json
import sys
import traceback

#: Separates what the function prints from the answer.
MARK = "\x1e"
#: Key of an object that stands for an array in a file.
ARRAY = "mandelbox:array"
#: Longest answer on stdout, in characters. The host keeps 64 KiB.
LONGEST = 40_000


def load(request):
    """Return the function."""
    if request["root"]:
        sys.path.insert(0, request["root"])
    if request["file"]:
        # The module of a program, without running the program.
        spec = importlib.util.spec_from_file_location("__mp_main__", request["file"])
        module = importlib.util.module_from_spec(spec)
        sys.modules["__mp_main__"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(request["module"])
    found = module
    for name in request["function"].split("."):
        found = getattr(found, name)
    return found


def decode(value):
    """Return a value in which arrays are loaded from their files."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            import numpy

            return numpy.load(value[ARRAY], allow_pickle=False)
        return {key: decode(item) for key, item in value.items()}
    return value


class Encoder:
    """Converts a result to JSON. Arrays are saved as files."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.n_files = 0

    def new_path(self):
        """Return the path of the next file. The host knows it by its number."""
        self.n_files += 1
        return f"{self.prefix}-{self.n_files}"

    def encode(self, value, place="result"):
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (list, tuple)):
            return [self.encode(item, f"{place}[{i}]") for i, item in enumerate(value)]
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"{place}: a key must be a string, not {type(key).__name__}")
            return {key: self.encode(item, f"{place}.{key}") for key, item in value.items()}
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            with open(self.new_path(), "wb") as file:
                numpy.save(file, value, allow_pickle=False)
            return {ARRAY: self.n_files}
        if numpy is not None and isinstance(value, numpy.generic):
            return value.item()
        raise TypeError(f"{place}: {type(value).__name__} is neither JSON nor an array")


def describe(error):
    """Return an error for the host."""
    kind = type(error)
    try:
        json.dumps(error.args)
        args = list(error.args)
    except (TypeError, ValueError):
        args = [str(error)]
    # Without the frame of this file.
    trace = error.__traceback__ and error.__traceback__.tb_next
    lines = traceback.format_exception(kind, error, trace)
    return {
        "module": kind.__module__,
        "type": kind.__qualname__,
        "args": args,
        "traceback": "".join(lines)[-20_000:],
    }


def call_all(request, encoder, answers):
    """Call the function for each item, and append the answers."""
    try:
        function = load(request)
        for item in request["items"]:
            arguments, keywords = decode(item["args"]), decode(item["kwargs"])
            answers.append({"result": encoder.encode(function(*arguments, **keywords))})
    except Exception as error:
        answers.append({"error": describe(error)})


def answer(request):
    """Call the function for each item, up to the first error, and return the answers."""
    encoder = Encoder(request["out"])
    answers = []
    call_all(request, encoder, answers)
    text = json.dumps(answers)
    if len(text) <= LONGEST:
        return {"answers": answers}
    with open(encoder.new_path(), "w") as file:
        file.write(text)
    return {"file": encoder.n_files}


if __name__ == "__main__":
    done = answer(json.load(sys.stdin))
    sys.stdout.write(MARK + json.dumps(done))
    sys.stdout.flush()
