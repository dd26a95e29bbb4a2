"""A proxy on loopback between a store and its storage, which can fail as networks and services do."""

import http.client
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy:
    """Real HTTP between a store and its storage, with faults: `before` is called with method, path and headers of each
    request, which it may change, and answers with a status instead of passing it on, or 0 to hang up; `after` is called
    when the storage has answered, and may say True to lose that answer."""

    def __init__(self, port: int) -> None:
        self.before: Callable[[str, str, dict[str, str]], int | None] = lambda *_: None
        self.after: Callable[[str, str], bool | None] = lambda *_: None
        self.requests: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = dict(self.headers.items())
                proxy.requests.append((self.command, self.path))
                status = proxy.before(self.command, self.path, headers)
                if status is not None:
                    if status:
                        self.answer(status, {}, b"<Error><Code>Fault</Code></Error>")
                    self.close_connection = True
                    return
                inner = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                inner.request(self.command, self.path, body, headers)
                answer = inner.getresponse()
                content = answer.read()
                inner.close()
                if proxy.after(self.command, self.path):
                    self.close_connection = True
                    return
                kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
                self.answer(answer.status, kept, content)

            def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response_only(status)
                if not any(name.lower() == "content-length" for name in headers) and status != 204:
                    headers["Content-Length"] = str(len(content))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
