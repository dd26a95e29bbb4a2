"""The command line: registers every command, and turns whatever ends one into an exit code and at most one line."""

import contextlib
import errno
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

import ktrain
from ktrain.errors import WrongRequest, nearest
from ktrain.system.retry import StorageUnavailable
from sweeps import commands, exchange, explain_commands, verify
from sweeps.bench import command as bench
from sweeps.cluster import check, jobs, preemption
from sweeps.doctor import command as doctor
from sweeps.generation import command as generation
from sweeps.options import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG
from sweeps.services import command as services

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
COMPLETION = "_KTRAIN_COMPLETE"
"""The environment variable by which a shell asks for completions."""
COMMANDS: dict[str, dict[str, Callable[..., int]]] = {
    "Sweeps": {
        "plan": commands.plan,
        "run": commands.run,
        "generate": generation.generate,
        "show": explain_commands.show,
        "axes": explain_commands.axes,
    },
    "Looking at results": {
        "status": commands.status,
        "results": commands.results,
        "report": commands.report,
        "ui": commands.ui,
        "why": explain_commands.why,
        "verify": verify.verify,
        "export": exchange.export_runs,
        "import": exchange.import_runs,
    },
    "Clusters": {
        "submit": jobs.submit,
        "logs": jobs.logs,
        "cancel": jobs.cancel,
        "serve": services.serve,
        "watch-preemption": preemption.watch_preemption,
    },
    "This machine": {"doctor": doctor.doctor, "bench": bench.bench},
}
"""The commands, under the headings of `ktrain --help`."""
ALIASES: dict[str, Callable[..., int]] = {"write": generation.generate, "drain-watch": preemption.watch_preemption}
"""Former names of commands, which go on working and are not listed."""

_LONG_WORD = re.compile(r"\S{300,}")
_LONGEST = 2_500
"""Characters of a refusal."""


class CommandGroup(TyperGroup):
    """A group whose unknown commands are a `WrongRequest` that names the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Raises `WrongRequest` for a command that does not exist."""
        if args[0] not in self.commands:
            listed = [name for name, command in self.commands.items() if not command.hidden]
            raise WrongRequest(f"command={args[0]}: must be one of {', '.join(listed)}{nearest(args[0], listed)}")
        return super().resolve_command(ctx, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 some stage failed, 2 the request is wrong."""
    from sweeps.execution.ray_session import Interrupted, RayEnded, prepare
    from sweeps.execution.stop_signals import as_ctrl_c
    from sweeps.services import process

    command = _command()
    if COMPLETION in os.environ:
        command.main(prog_name="ktrain")
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="ktrain: %(message)s", level=logging.WARNING)
    # A command reports a server that is away itself, in one line at the end.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        _prepare_streams()
        prepare()
        process.log_in()
        # Not `command.main`, which ends the process with exit codes of its own.
        with as_ctrl_c(), command.make_context("ktrain", words or ["--help"]) as context:
            code = int(command.invoke(context))
        sys.stdout.flush()
        return code
    except typer.Exit as e:
        return e.exit_code
    except typer.TyperException as e:
        return _refuse(_usage_line(e, words))
    except WrongRequest as e:
        return _refuse(str(e))
    except StorageUnavailable as e:
        print(f"ktrain: {' '.join(str(e).split())}; what is done is kept", file=sys.stderr)
        return EXIT_FAILED
    except RayEnded as e:
        print(f"ktrain: {e}; what is done is kept, and the same command continues", file=sys.stderr)
        return EXIT_FAILED
    except (Interrupted, KeyboardInterrupt):
        print("ktrain: stopped; what is done is kept, and the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return EXIT_DONE
    except OSError as e:
        code = _refuse(_system_line(e))
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return code


@functools.cache
def _command() -> Any:
    """Builds the whole command line once."""
    app = typer.Typer(
        cls=CommandGroup, help="When can a language model give back what it has read?", context_settings=HELP_OPTIONS
    )
    app.callback()(_common)
    for panel, handlers in COMMANDS.items():
        for name, handler in handlers.items():
            app.command(name, rich_help_panel=panel)(handler)
    for name, handler in ALIASES.items():
        app.command(name, hidden=True)(handler)
    cluster = typer.Typer(cls=CommandGroup, help="Check a cluster file before anything is billed.")
    cluster.command("check")(check.check_file)
    app.add_typer(cluster, name="cluster", rich_help_panel="Clusters")
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"ktrain {ktrain.__version__}")
        raise typer.Exit()


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """When can a language model give back what it has read?"""


def _refuse(line: str) -> int:
    """Prints a refusal as one line, in which each long word is shortened: a file, an address or a list of values."""
    line = " ".join(_LONG_WORD.sub(lambda word: f"{word[0][:100]}...{word[0][-50:]}", line).split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"ktrain: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]} ...'}", file=sys.stderr)
    return EXIT_WRONG


def _system_line(error: OSError) -> str:
    """Formats an error of the system: the file, if it has one, and the reason."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason}" if not isinstance(error.filename, int) else reason
    try:
        os.getcwd()
    except OSError:
        return "the working folder is gone: enter one that exists"
    return f"output: {reason}" if error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF, errno.EFBIG) else reason


def _prepare_streams() -> None:
    """Makes the output bear any text. Raises `WrongRequest` if standard output is closed."""
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        # Each takes the lowest free number, so no file that is opened later takes the place of the stream.
        setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if "stdout" in closed:
        raise WrongRequest("output: standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Sends what is still to be written to standard output nowhere: the interpreter would fail again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_line(error: typer.TyperException, words: Sequence[str]) -> str:
    """Rewrites a usage error of Typer as our line: the field and its value, what is allowed, the nearest match.

    Typer does not export its usage errors, so their attributes tell them apart: `param` belongs to a value that is
    missing or wrong, `option_name` to an option that does not exist or lacks its value; then there may be no `ctx`.
    """
    context, parameter, option = (getattr(error, name, None) for name in ("ctx", "param", "option_name"))
    if parameter is not None:
        return _parameter_line(parameter, error)
    root = _command()
    command = context.command if context else root.commands.get(words[0], root)
    if option is not None:
        options = {name: each for each in command.params for name in each.opts}
        if context:
            return f"{option}: {context.info_name} has no such option{nearest(option, [*options, '--help'])}"
        return (
            f"{option}: takes no value"
            if options[option].is_flag
            else f"{option}: needs a value: {options[option].help}"
        )
    if isinstance(command, TyperGroup):
        return f"{command.name or 'ktrain'}: must be followed by one of {', '.join(command.commands)}"
    return f"{command.name}: {error.message[:1].lower()}{error.message[1:]}"


def _parameter_line(parameter: Any, error: typer.TyperException) -> str:
    name = parameter.opts[-1].lstrip("-") if parameter.param_type_name == "option" else parameter.name
    if not isinstance(error.__cause__, ValidationError):
        return f"{name}: is missing: {parameter.help}"
    first = error.__cause__.errors()[0]
    value = first["input"]
    if choices := parameter.type_descriptor.choices:
        return f"{name}={value}: must be one of {', '.join(choices)}{nearest(str(value), choices)}"
    return f"{name}={value}: {first['msg'].partition(',')[0].replace('Input should be', 'must be')}"


if __name__ == "__main__":
    sys.exit(main())
