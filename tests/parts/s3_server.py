"""A server on loopback that speaks S3: moto's, one request at a time."""

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOTO = """
import io, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
inner, alone = DomainDispatcherApplication(create_backend_app), threading.Lock()
def app(environ, start):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    # Moto looks and writes in two steps, which storage does in one.
    with alone:
        return list(inner({**environ, "wsgi.input": io.BytesIO(body)}, start))
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def serving(log: Path) -> Iterator[int]:
    """The port of the server, with the bucket `bucket`; what it says goes into `log`."""
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", MOTO], stdout=subprocess.PIPE, stderr=file)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        made = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        with urllib.request.urlopen(made, timeout=60):
            yield port
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def environment(port: int) -> dict[str, str]:
    """By which a store in it is found."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
