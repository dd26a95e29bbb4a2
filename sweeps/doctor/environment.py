"""The check `environment`: misspelt, malformed or contradictory variables, and secrets that others may read."""

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from ktrain.errors import nearest
from ktrain.system.home_folder import expanded
from ktrain.system.launchers import device_faults
from sweeps.doctor.databases import without_password
from sweeps.doctor.finding import CheckContext, Finding, fail, ok, warn
from sweeps.execution.cluster_address import address_fault

NAME = "environment"
OWN = (
    "KTRAIN_STORE",
    "KTRAIN_CACHE",
    "KTRAIN_COMMIT",
    "KTRAIN_DATABASE_URL",
    "KTRAIN_ARTIFACTS",
    "KTRAIN_ENDPOINT_KEY",
    "KTRAIN_SERVER",
)
"""The variables of this project. Any other `KTRAIN_...` is a mistake."""
OTHERS = (
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
)
"""Variables of other projects whose misspellings are reported."""
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
MODES = ("disabled", "token")
SECRETS = ("~/.ray/auth_token", "~/.mlflow/credentials", "~/.pgpass", "~/.aws/credentials")
FOLDERS = ("~/.ktrain/*.env", "~/.config/ktrain/*.env", "~/.config/ktrain/*.secret", "~/.config/ktrain/pgpass")
"""Files of secrets, besides the one that `RAY_AUTH_TOKEN_PATH` names."""
LOOPBACK = ("http://localhost", "http://127.0.0.1", "http://[::1]")


def environment(_: CheckContext) -> Iterator[Finding]:
    """`environment`: a finding for each fault, or one pass."""
    return judge(os.environ)


def judge(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Judges these variables, and the files of secrets that exist."""
    faults = [*_spelling(variables), *_tracking(variables), *_login(variables)]
    faults += [*_address(variables), *_token(variables), *_training(variables), *_secrets(variables)]
    known = ", ".join(name for name in OWN + OTHERS if name in variables)
    yield from faults or [ok(NAME, f"nothing wrong with {known}" if known else "nothing is set that could be wrong")]


def _spelling(variables: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(variables):
        if name.startswith("KTRAIN_") and name not in OWN:
            yield fail(NAME, f"{name} is no variable of ktrain{nearest(name, OWN)}", f"unset {name}")
        elif name not in OTHERS and (near := difflib.get_close_matches(name, OTHERS, cutoff=0.9)):
            meant = next((known for known in near if known.startswith(name)), near[0])
            yield warn(NAME, f"{name} means nothing; did you mean {meant}?", f"unset {name}")
    for name in OWN + OTHERS:
        value = variables.get(name, "")
        if value != value.strip() or re.fullmatch(r"([\"']).*\1", value):
            yield fail(NAME, f"{name} has quotes or spaces around its value", f"export {name}=... without them")
        elif name in variables and not value and name not in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"):
            yield warn(NAME, f"{name} is empty, which is as if it were not set", f"unset {name}, or give it a value")


def _tracking(variables: Mapping[str, str]) -> Iterator[Finding]:
    uri = variables.get("MLFLOW_TRACKING_URI", "").strip()
    scheme = uri.partition(":")[0].partition("+")[0]
    shown, example = f"MLFLOW_TRACKING_URI={without_password(uri)}", "export MLFLOW_TRACKING_URI=http://HOST:5000"
    if not uri:
        return
    if scheme not in SCHEMES or "://" not in uri:
        yield fail(NAME, f"{shown}: must begin with http:// or https://{nearest(scheme, SCHEMES)}", example)
    elif scheme == "sqlite" and not uri.startswith("sqlite:////"):
        detail = f"{shown} means another file in every folder"
        yield fail(NAME, detail, "export MLFLOW_TRACKING_URI=sqlite:////FOLDER/mlflow.db")
    elif scheme != "sqlite":
        try:
            parts = urlsplit(uri)
            valid = parts.port != 0 and bool(parts.hostname)
        except ValueError:
            valid = False
        if not valid:
            yield fail(NAME, f"{shown} has no host, or no valid port", example)
        elif parts.fragment or parts.query:
            yield fail(NAME, f"{shown} is the address of a page", f"{example}, without what follows the port")
        elif parts.password:
            fix = "take it out; export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            yield fail(NAME, f"{shown} holds a password, which ends in logs and reports", fix)


def _login(variables: Mapping[str, str]) -> Iterator[Finding]:
    user, password, token = (f"MLFLOW_TRACKING_{what}" for what in ("USERNAME", "PASSWORD", "TOKEN"))
    uri, given = variables.get("MLFLOW_TRACKING_URI", ""), [n for n in (user, password) if variables.get(n)]
    if len(given) == 1:
        other = password if given == [user] else user
        detail = f"{given[0]} without {other}: no name and password are sent"
        yield fail(NAME, detail, f"export {other}, or unset {given[0]}")
    if given and variables.get(token):
        yield fail(NAME, f"{token} besides {given[0]}: only one of them is sent", f"unset {token} or {given[0]}")
    if given and not uri.startswith("http"):
        detail = f"{given[0]} has no effect: MLFLOW_TRACKING_URI names no server"
        yield warn(NAME, detail, f"export MLFLOW_TRACKING_URI, or unset {given[0]}")
    trusting, certificate = "MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH"
    if variables.get(trusting, "").lower() in ("true", "1") and variables.get(certificate):
        yield fail(NAME, f"{trusting} besides {certificate}: MLflow refuses both", f"unset {trusting}")
    if len(given) == 2 and uri.startswith("http://") and not uri.startswith(LOOPBACK):
        fix = "ssh -N -L 5000:127.0.0.1:5000 HEAD and http://127.0.0.1:5000, or https://"
        yield warn(NAME, f"the password goes to {without_password(uri)} in clear text", fix)


def _address(variables: Mapping[str, str]) -> Iterator[Finding]:
    address = variables.get("RAY_ADDRESS", "")
    if address and (wrong := address_fault(address)):
        yield fail(NAME, f"RAY_ADDRESS={address} {wrong[0]}", f"export RAY_ADDRESS: {wrong[1]}")


def _token(variables: Mapping[str, str]) -> Iterator[Finding]:
    mode = variables.get("RAY_AUTH_MODE", "").lower()
    path, default = variables.get("RAY_AUTH_TOKEN_PATH"), expanded("~/.ray/auth_token")
    if mode and mode not in MODES:
        fix = "export RAY_AUTH_MODE=token, on all nodes"
        yield fail(NAME, f"RAY_AUTH_MODE={mode}: must be one of {', '.join(MODES)}{nearest(mode, MODES)}", fix)
    if path and variables.get("RAY_AUTH_TOKEN"):
        yield warn(NAME, "RAY_AUTH_TOKEN besides RAY_AUTH_TOKEN_PATH: the file is not read", "unset one of them")
    if path and not expanded(path).is_file():
        yield fail(NAME, f"RAY_AUTH_TOKEN_PATH={path}: no such file", "ray get-auth-token --generate > FILE, mode 600")
    elif mode == "token" and not (path or variables.get("RAY_AUTH_TOKEN") or default.is_file()):
        fix = "copy ~/.ray/auth_token from the head, or `ray get-auth-token --generate` on it"
        yield fail(NAME, f"RAY_AUTH_MODE=token, and there is no token: neither RAY_AUTH_TOKEN nor {default}", fix)


def _training(variables: Mapping[str, str]) -> Iterator[Finding]:
    devices, threads = variables.get("CUDA_VISIBLE_DEVICES", ""), variables.get("OMP_NUM_THREADS", "")
    kind, kinds = variables.get("DS_ACCELERATOR", ""), ("cuda", "cpu")
    listed = [item.strip() for item in devices.split(",")] if devices else []
    bad = [item for item in listed if not re.fullmatch(r"-?\d+|(GPU|MIG)-[0-9a-fA-F/-]+", item)]
    if bad or len(set(listed)) < len(listed):
        detail = f"CUDA_VISIBLE_DEVICES={devices}: must be different numbers"
        yield fail(NAME, detail, "export CUDA_VISIBLE_DEVICES=0,1")
    if threads and not re.fullmatch(r"[1-9]\d*", threads):
        yield fail(NAME, f"OMP_NUM_THREADS={threads}: must be a number from 1", "unset OMP_NUM_THREADS")
    if kind and kind not in kinds:
        fix = "unset DS_ACCELERATOR"
        yield fail(NAME, f"DS_ACCELERATOR={kind}: must be {' or '.join(kinds)}{nearest(kind, kinds)}", fix)
    yield from (fail(NAME, line, fix) for line, fix in device_faults(variables))
    if variables.get("RAY_TRAIN_V2_ENABLED", "1") in ("0", "false", "False"):
        fix = "unset RAY_TRAIN_V2_ENABLED"
        yield fail(NAME, "RAY_TRAIN_V2_ENABLED=0: sweeps need Ray Train's second version", fix)


def _secrets(variables: Mapping[str, str]) -> Iterator[Finding]:
    files = [expanded(name) for name in SECRETS]
    if named := variables.get("RAY_AUTH_TOKEN_PATH"):
        files.append(expanded(named))
    for pattern in FOLDERS:
        folder, _, names = pattern.rpartition("/")
        with suppress(OSError):
            files += sorted(expanded(folder).glob(names))
    for file in files:
        with suppress(OSError):
            status, closed = file.stat(), not file.parent.stat().st_mode & 0o077
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077 and not closed:
                mode = stat.S_IMODE(status.st_mode)
                yield fail(NAME, f"{file} holds a secret, and others may read it (mode {mode:o})", f"chmod 600 {file}")
