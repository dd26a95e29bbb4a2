"""SIGTERM and SIGHUP stop a command as Ctrl-C does: what is done is kept, and the command says so in one line."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP do what Ctrl-C does at that moment, whoever handles it then.

    Leaves a SIGHUP alone that the parent has told this process to ignore, as `nohup` does. Has an effect only in the
    main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream and stream.isatty()]

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The terminal is gone, and to write there would raise an error.
            for descriptor in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        handler = signal.getsignal(signal.SIGINT)
        # A shell lets its background jobs ignore Ctrl-C.
        handler(signal.SIGINT, frame) if callable(handler) else signal.default_int_handler(signal.SIGINT, frame)

    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def kept() -> Iterator[None]:
    """Starts Ray inside: Ray's own handler of SIGTERM is taken back at the end, and its processes do not hear SIGHUP.

    A terminal that closes sends SIGHUP to all processes of its foreground; Ray's are ended by the driver.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        # None stands for a handler that Python did not install and cannot install again.
        if handler is not None:
            signal.signal(number, handler)
