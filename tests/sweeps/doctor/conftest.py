"""What the tests of the checks share: a machine to ask about, and servers that answer as a test wants."""

import http.server
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sweeps.doctor.finding import CheckContext, Finding

Answer = tuple[int, str]


@pytest.fixture
def setting(tmp_path: Path) -> CheckContext:
    """One machine with a store that is not there yet."""
    return CheckContext(store=str(tmp_path / "results"), tracking=f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")


@pytest.fixture(scope="session")
def lines() -> Callable[[Iterable[Finding]], list[tuple[str, str]]]:
    """Names and results of findings, which all say something in one line."""

    def told(findings: Iterable[Finding]) -> list[tuple[str, str]]:
        found = list(findings)
        assert all(f.detail and "\n" not in f.detail + f.fix and "Traceback" not in f.detail for f in found)
        return [(f.name, f.result) for f in found]

    return told


@pytest.fixture(scope="session")
def answering() -> Callable[[Callable[[str], Answer]], AbstractContextManager[str]]:
    """An HTTP server on loopback that is not MLflow: `with answering(lambda path: (404, "")) as uri:`."""
    return _answering


@contextmanager
def _answering(answer: Callable[[str], Answer]) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
