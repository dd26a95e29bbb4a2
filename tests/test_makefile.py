"""What `make install` tells uv of pip's settings, with a pip and a uv that only say what they are asked."""

import os
import shutil
import subprocess
from pathlib import Path

PIP = """#!/bin/sh
test "$1" != config || cat config
"""
UV = """#!/bin/sh
{ env | grep -E '^(UV_|SSL_CERT_FILE|HTTPS?_PROXY)'; echo "$*"; } > said
exit 0
"""


def told(folder: Path, config: str) -> dict[str, str]:
    """The variables that uv has where `pip config list` prints `config`."""
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "Makefile", folder)
    for name, text in {"config": config, "pyproject.toml": "", "constraints.txt": ""}.items():
        (folder / name).write_text(text)
    for name, script in {"pip": PIP, "uv": UV}.items():
        (binaries / name).write_text(script)
        (binaries / name).chmod(0o755)
    command = ["make", "--silent", ".venv/installed", "PYTHON=true"]
    made = subprocess.run(command, cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    *variables, words = (folder / "said").read_text().splitlines()
    assert words.startswith("pip install --quiet --python .venv/bin/python -c constraints.txt ")
    return dict(line.split("=", 1) for line in variables) | {"UV_NO_CACHE": ""}


def test_a_variable_goes_before_a_file_and_a_command_before_all_commands(tmp_path: Path) -> None:
    config = """:env:.cert='/env/ca.pem'
:env:.index-url='https://env/simple'
global.cert='/global/ca.pem'
global.index-url='https://global/simple'
install.index-url='https://install/simple'
"""
    assert told(tmp_path / "a", config) == {
        "UV_NO_CACHE": "", "SSL_CERT_FILE": "/env/ca.pem", "UV_DEFAULT_INDEX": "https://env/simple",
    }  # fmt: skip
    without = config.replace(":env:.index-url", ":env:.proxy")
    assert told(tmp_path / "b", without)["UV_DEFAULT_INDEX"] == "https://install/simple"


def test_several_indexes_and_folders_odd_signs_and_nothing(tmp_path: Path) -> None:
    """pip prints line ends as two signs, and a value with an apostrophe, which no URL has, in other quotes."""
    config = r"""global.cert='/my certificates/ca.pem'
global.extra-index-url='\nhttps://a:p$b&c@x/simple\nhttps://b/simple'
global.find-links='/opt/a /opt/b'
global.index-url="https://o'brien/simple"
"""
    assert told(tmp_path / "a", config) == {
        "UV_NO_CACHE": "", "SSL_CERT_FILE": "/my certificates/ca.pem", "UV_FIND_LINKS": "/opt/a,/opt/b",
        "UV_INDEX": "https://a:p$b&c@x/simple https://b/simple", "UV_INDEX_STRATEGY": "unsafe-best-match",
    }  # fmt: skip
    assert told(tmp_path / "b", "") == {"UV_NO_CACHE": ""}


def test_a_machine_behind_a_proxy_and_one_without_a_network(tmp_path: Path) -> None:
    """A trusted host is one whose certificate nobody checks."""
    config = """:env:.proxy='http://user:p@proxy:3128'
global.proxy='http://other:1'
global.trusted-host='\\na.example\\nb.example:8443'
"""
    assert told(tmp_path / "a", config) == {
        "UV_NO_CACHE": "", "HTTP_PROXY": "http://user:p@proxy:3128", "HTTPS_PROXY": "http://user:p@proxy:3128",
        "UV_INSECURE_HOST": "a.example b.example:8443",
    }  # fmt: skip
    offline = "global.find-links='/wheels'\ninstall.no-index='true'\n"
    assert told(tmp_path / "b", offline) == {"UV_NO_CACHE": "", "UV_FIND_LINKS": "/wheels", "UV_OFFLINE": "1"}
    undone = offline + ":env:.no-index='off'\n"
    assert told(tmp_path / "c", undone) == {"UV_NO_CACHE": "", "UV_FIND_LINKS": "/wheels"}
