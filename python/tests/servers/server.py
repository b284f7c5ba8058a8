"""A fractal-server of a test: a process on a free port, its client, and checks that are counted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx


class Server:
    """A server with a folder of its own, and a client that is logged in. Use it as a context manager.

    Its database must be ready before the block, in which the server runs.
    """

    def __init__(
        self, app: str, api: str, variables: dict[str, str], folders: tuple[str, ...]
    ) -> None:
        """Create the folders.

        Args:
            app: What uvicorn serves, such as ``fractal_server.main:app``.
            api: Start of the paths of requests, such as ``/api/v1``.
            variables: Variables of the environment. ``{root}`` stands for the folder of the server.
            folders: Names of folders in it.
        """
        self.root = Path(tempfile.mkdtemp(prefix="fractal-http-"))
        for name in folders:
            (self.root / name).mkdir()
        own = {name: value.format(root=self.root) for name, value in variables.items()}
        self.env = {
            **os.environ,
            "FRACTAL_RUNNER_BACKEND": "local",
            "JWT_EXPIRE_SECONDS": "3600",
            **own,
        }
        self.n_wrong = 0
        self._app = app
        self._api = api

    def fractalctl(self, *arguments: str) -> None:
        """Run a command of fractal-server."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = ["fractalctl", *arguments]
        subprocess.run(command, env=self.env, cwd=self.root, check=True, **quiet)

    def __enter__(self) -> Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            self._app,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        with open(self.root / "server.log", "w") as log:
            self._process = subprocess.Popen(
                command, env=self.env, cwd=self.root, stdout=log, stderr=log
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        return self

    def log_in(self, name: str, password: str) -> None:
        """Wait for the server and log in."""
        for _ in range(600):
            try:
                self.client.get("/api/alive/")
                break
            except httpx.TransportError:
                time.sleep(0.1)
                if self._process.poll() is not None:
                    log = (self.root / "server.log").read_text()
                    sys.exit(f"the server did not start:\n{log}")
        answer = self.client.post(
            "/auth/token/login/", data={"username": name, "password": password}
        )
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def post(self, path: str, /, entries: Any = None, **body: Any) -> Any:
        """Create something. Returns the answer as JSON."""
        answer = self.client.post(self._api + path, json=body if entries is None else entries)
        assert answer.status_code < 300, (path, answer.status_code, answer.text)
        return answer.json()

    def get(self, path: str, /, **query: Any) -> httpx.Response:
        """Get something."""
        return self.client.get(self._api + path, params=query)

    def check(self, what: str, is_so: bool, seen: Any = "") -> None:
        """Print a check, and count it if it failed."""
        self.n_wrong += not is_so
        print(("ok    " if is_so else "WRONG ") + what + ("" if is_so else f": {seen}"), flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(20)

    def exit(self) -> None:
        """Print the number of checks that failed, and exit with 1 if there is one."""
        print(f"{self.root}: {self.n_wrong} wrong")
        sys.exit(bool(self.n_wrong))
