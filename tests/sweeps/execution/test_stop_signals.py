"""SIGTERM and SIGHUP end a run as Ctrl-C does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.execution import stop_signals

ROOT = Path(__file__).parents[3]
WAITS = """
import signal, sys
from sweeps.execution.stop_signals import as_ctrl_c, kept
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "background" else signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
try:
    with as_ctrl_c():
        with kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))  # As Ray does.
        print("ready", flush=True)
        input()
        print("went on", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("started", ["", "background", "nohup"])
def test_a_signal_that_asks_to_stop_does_what_ctrl_c_does(number: signal.Signals, started: str) -> None:
    ignored = (number, started) in ((signal.SIGINT, "background"), (signal.SIGHUP, "nohup"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", WAITS, started], **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, _ = process.communicate("\n" if ignored else None, timeout=60)
    assert (out, process.returncode) == ("went on\n" if ignored else "stopped\n", 0)


@pytest.fixture
def hung_up() -> Iterator[None]:
    """SIGHUP as in a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hung_up")
def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in stop_signals.STOPS]
    with stop_signals.as_ctrl_c():
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is not before[0]
    assert [signal.getsignal(number) for number in stop_signals.STOPS] == before


def test_a_terminal_that_closes_ends_the_command_quietly() -> None:
    """Its output is gone by then, so that to print the last line must not raise an error."""
    import pty

    program = WAITS.replace('print("stopped", flush=True)', 'print("stopped", flush=True); sys.exit(5)')
    program = program.replace("input()", "signal.pause()")
    master, slave = pty.openpty()
    command = [sys.executable, "-c", program, ""]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=ROOT)
    os.close(slave)
    assert os.read(master, 100).startswith(b"ready")
    os.close(master)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 5
