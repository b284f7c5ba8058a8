"""fractal-server with mandelbox as its local backend: ``uvicorn mandelbox.fractal.app:app``."""

from __future__ import annotations

from typing import Any

from . import install

install()

from fractal_server.main import app as _app  # noqa: E402

app: Any = _app
