"""A fake cloud: a server that answers like the metadata services of AWS and Google."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ACTION, REBALANCE = "spot/instance-action", "events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


@dataclass
class Cloud:
    """What the service has to say, by path; a token is good for so many questions."""

    address: str = ""
    says: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    good_for: int = 3

    def aws(self, name: str, text: str) -> None:
        """Something to be said about an AWS machine."""
        self.says[f"/latest/meta-data/{name}"] = text

    def takes_back(self, seconds: float) -> None:
        """AWS wants its machine back in so many seconds."""
        at = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.aws(ACTION, f'{{"action": "terminate", "time": "{at}"}}')

    def answer(self, method: str, path: str, headers: Message) -> tuple[int, str]:
        """Code and text."""
        if method == "PUT":
            if path != "/latest/api/token" or "X-aws-ec2-metadata-token-ttl-seconds" not in headers:
                return 400, ""
            self.left[token := f"token-{len(self.left)}"] = self.good_for
            return 200, token
        self.requests.append(path)
        if path.startswith("/latest/"):
            token = headers.get("X-aws-ec2-metadata-token", "")
            if not self.left.get(token):
                return 401, ""
            self.left[token] -= 1
        elif headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        text = self.says.get(path)
        return (404, "") if text is None else (200, text)


@contextmanager
def serving() -> Iterator[Cloud]:
    """The service on a free port of loopback."""
    cloud = Cloud()

    class Service(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            code, text = cloud.answer(self.command, self.path, self.headers)
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_PUT = _answer

        def log_message(self, format: str, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    cloud.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
