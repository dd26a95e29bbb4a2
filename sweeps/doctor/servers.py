"""The checks `tracking`, `tracking-access` and `tracking-version` of an MLflow server."""

import os
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

from sweeps.doctor.databases import root_cause, schema, sqlite, without_password
from sweeps.doctor.finding import CheckContext, Finding, fail, ok, warn
from sweeps.doctor.versions import requirements
from sweeps.execution.cluster_address import SECONDS, unreachable

LIMIT = 90.0
"""Seconds for all requests to a server, and for importing MLflow."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
EXAMPLE = "export MLFLOW_TRACKING_URI=http://HOST:5000"
SEARCH = "/api/2.0/mlflow/experiments/search"


def tracking(context: CheckContext) -> Iterator[Finding]:
    """`tracking`; of a server also `tracking-access` and `tracking-version`, of a database `tracking-schema`."""
    uri = context.tracking
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in ("http", "https"):
        return _server(uri, context.nodes > 1)
    if scheme == "sqlite":
        return sqlite(uri, context.nodes)
    if scheme in ("postgresql", "mysql", "mssql"):
        return schema(uri)
    detail = f"MLFLOW_TRACKING_URI={without_password(uri)} is no address of a server or database"
    unset = "MLFLOW_TRACKING_URI is not set, and beside this store there is no place for SQLite"
    return iter([fail("tracking", detail if uri else unset, EXAMPLE)])


def _server(uri: str, shared: bool) -> Iterator[Finding]:
    name, shown = "tracking", without_password(uri)
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        yield fail(name, f"MLFLOW_TRACKING_URI={shown} has no host, or no valid port", EXAMPLE)
        return
    if not _proxied(host) and (line := unreachable(host, port)):
        tunnel = f"ssh -N -L {port}:127.0.0.1:{port} HEAD" if host in LOOPBACK else "open the way to it"
        yield fail(name, f"{shown}: {line}", f"start it there with `ktrain serve`, or {tunnel}")
        return
    try:
        health, answer, anonymous = (
            _request(uri, "/health"),
            _request(uri, SEARCH),
            _request(uri, SEARCH, with_login=False),
        )
    except Exception as e:
        fix = "look at the server's log; where it uses TLS, set MLFLOW_TRACKING_SERVER_CERT_PATH"
        yield fail(name, f"{shown}: {root_cause(e)}", fix)
        return
    known = health.status_code in (200, 401, 403) and answer.status_code != 404
    if not known or (answer.status_code == 200 and not _json(answer)):
        detail = f"what is at {shown} is not MLflow: it answers {health.status_code} and {answer.status_code}"
        yield fail(name, detail, "export MLFLOW_TRACKING_URI to the address that the browser shows, up to /#")
        return
    yield ok(name, f"{shown} answers")
    yield _access(uri, answer, anonymous.status_code == 200, shared)
    if answer.status_code == 200:
        yield _version(_request(uri, "/version").text.strip())


def _access(uri: str, answer: Any, open_to_all: bool, shared: bool) -> Finding:
    name, user = "tracking-access", _user()
    said = (answer.text.strip().splitlines() or [""])[0][:120]
    if answer.status_code == 401:
        detail = f"401: it refuses user {user}" if user else "401: it asks for a user, and none is set"
        return fail(name, detail, "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=...")
    if answer.status_code == 403 and "Host header" in said:
        host, plain = urlsplit(uri).netloc.rpartition("@")[2], urlsplit(uri).hostname
        detail = f"403: the server does not go by the name {host}"
        fix = f"`ktrain serve --allowed-hosts {plain}`, or `mlflow server --allowed-hosts '{host},localhost:*'`"
        return fail(name, detail, fix)
    if answer.status_code == 403:
        return fail(name, f"403: user {user} may not read: {said}", "let its administrator permit this user")
    if answer.status_code != 200:
        fix = "look at the server's log; `mlflow db upgrade` where it says so"
        return fail(name, f"{answer.status_code}: {said}", fix)
    if open_to_all and (shared or urlsplit(uri).hostname not in LOOPBACK):
        detail = "whoever reaches it reads and deletes everything: it asks for no password"
        return (fail if shared else warn)(name, detail, "start it with `ktrain serve`, or with --app-name basic-auth")
    return ok(name, "open to all who reach it" if open_to_all else f"lets user {user} in, and nobody without password")


def _version(there: str) -> Finding:
    from mlflow.version import VERSION as here

    required = requirements()["mlflow"]
    try:
        fits = required.specifier.contains(Version(there), prereleases=True)
    except InvalidVersion:
        return fail("tracking-version", f"the server says {there[:40]!r}", "is this address that of an MLflow server?")
    fix = f"pip install mlflow=={here} where the server is"
    if not fits:
        return fail("tracking-version", f"the server runs {there}, needed is {required}", fix)
    if there != here:
        return warn("tracking-version", f"the server runs {there}, here is {here}", fix)
    return ok("tracking-version", f"{there} there and here")


def _proxied(host: str) -> bool:
    """Whether a proxy makes the connection, whose error then says what is wrong."""
    proxies = urllib.request.getproxies()
    return ("http" in proxies or "https" in proxies) and not urllib.request.proxy_bypass(host)


def _request(uri: str, path: str, *, with_login: bool = True) -> Any:
    """Sends a request through MLflow's own client, with our login or without. Raises what `requests` raises."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import MlflowHostCreds, http_request

    credentials = get_default_host_creds(uri)
    if not with_login:
        cert = {"server_cert_path": credentials.server_cert_path, "client_cert_path": credentials.client_cert_path}
        parts = urlsplit(uri)
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        credentials = MlflowHostCreds(host=uri, ignore_tls_verification=credentials.ignore_tls_verification, **cert)
    body = {"json": {"max_results": 1}} if path == SEARCH else {}
    method = "POST" if body else "GET"
    return http_request(credentials, path, method, max_retries=0, timeout=SECONDS, raise_on_status=False, **body)


def _json(answer: Any) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _user() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    return str(read_mlflow_creds().username or ("with a token" if os.environ.get("MLFLOW_TRACKING_TOKEN") else ""))
