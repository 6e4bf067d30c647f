"""The Typer app and ``main()``: the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Annotated

import typer

from gddctl import __version__
from gddctl.commands import bench, compare, data, distill, doctor, evaluate, export, init, parity, predict, run, serve, ship, train, verify
from gddctl.commands.output import Output, emitted
from gddctl.core.errors import GddctlError, Interrupted, RunFailed, UsageError

app = typer.Typer(
    name="gddctl",
    help="Distil a compact segmentation student, export it, prove that it still answers the same, measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gddctl {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Distil, export, prove, measure."""


app.command("run")(run.run)
app.command("init")(init.init)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("parity")(parity.parity)
app.command("bench")(bench.bench)
app.command("predict")(predict.predict)
app.command("serve")(serve.serve)
app.command("ship")(ship.ship)
app.command("verify")(verify.verify)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; every :class:`GddctlError` is one red line on stderr and its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: half-made files and folders go, 130 says why
    try:
        app()
    except GddctlError as error:
        _leave(error)
    except KeyboardInterrupt:
        _leave(Interrupted("interrupted"))
    except MemoryError:
        _leave(RunFailed("out of memory", remedy="use a smaller batch, crop or number of workers"))
    except SystemExit as leaving:
        _take_over(leaving)


def _take_over(leaving: SystemExit) -> None:
    """Typer turns Ctrl-C, a closed pipe and a wrong flag into a bare exit; say what is promised before going on with it."""
    cause = leaving.__context__
    if isinstance(cause, BrokenPipeError):
        if not _reader_left():
            _leave(RunFailed("a process that this one was talking to has ended", remedy="start the same command again"))
        # The reader (head, less) left: not an error. Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if leaving.code == Interrupted.exit_code:
        _leave(Interrupted("interrupted"))
    describe = getattr(cause, "format_message", None)  # a usage error, which Typer has printed
    if describe is not None:
        _emit_error(describe(), "UsageError", UsageError.exit_code)
    raise leaving


def _reader_left() -> bool:
    poll = select.poll()
    poll.register(sys.__stdout__ or 1, select.POLLOUT)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def _leave(error: GddctlError) -> None:
    text = " ".join(str(error).split("\n"))
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[31merror: {text}\x1b[0m" if color else f"error: {text}", file=sys.stderr)
    _emit_error(text, type(error).__name__, error.exit_code)
    sys.exit(error.exit_code)


def _emit_error(text: str, kind: str, exit_code: int) -> None:
    if "--json" in sys.argv and not emitted():
        Output(json=True).emit({"error": text, "kind": kind, "exit_code": exit_code})
