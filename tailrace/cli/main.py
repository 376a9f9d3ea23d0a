"""Entry point of the command line.

Commands import heavy modules when they run, so that `tailrace --help` loads neither torch nor Kafka. Every error ends
as one line on stderr and an exit code; see `tailrace.errors`.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from tailrace import __version__
from tailrace.cli import backtest, compare, console, dlq, explain, inspect, keys, models, roles, start, streams
from tailrace.errors import Exit, error_line

app = typer.Typer(
    name="tailrace",
    rich_markup_mode=None,  # plain help: rich help takes three times as long to load
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (start, roles, console, streams, explain, backtest, compare, inspect):
    module.register(app)
app.add_typer(models.app, name="models")
app.add_typer(dlq.app, name="dlq")
app.add_typer(keys.app, name="keys")
app.add_typer(inspect.config, name="config")


def _version(requested: bool) -> None:
    if requested:
        print(f"tailrace {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    config: Annotated[str | None, typer.Option("--config", help="Settings file. Default: tailrace.toml.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Streaming inference with continuous retraining.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 refused, 4 a dependency is unreachable, 130 interrupted.
    """
    # Stored in the environment, so that child processes inherit them.
    if config:
        os.environ["TAILRACE_CONFIG"] = config
    if debug:
        os.environ["TAILRACE_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        returned = typer.main.get_command(app).main(arguments, prog_name="tailrace", standalone_mode=False)
    except BrokenPipeError:  # the reader of stdout has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (Exception, KeyboardInterrupt) as error:
        return _handle(error)
    if returned == Exit.INTERRUPTED:  # some versions of click return 130 after Ctrl-C
        return _report(KeyboardInterrupt())
    return returned if isinstance(returned, int) else Exit.OK


def main() -> None:
    """Run the command of this process's arguments, and exit."""
    sys.exit(run(sys.argv[1:]))


def _handle(error: BaseException) -> int:
    """Report an error, with its traceback in debug mode, and return the exit code."""
    if os.environ.get("TAILRACE_DEBUG") == "1":
        traceback.print_exception(error)
    if type(error).__name__ == "Abort":  # other versions of click raise this after Ctrl-C
        return _report(KeyboardInterrupt())
    if hasattr(error, "format_message"):  # a usage error of click, whose module differs between versions
        path = getattr(getattr(error, "ctx", None), "command_path", "tailrace")
        print(f"tailrace: {error.format_message()} (see `{path} --help`)".replace("\n", " "), file=sys.stderr)
        return Exit.USAGE
    return _report(error)


def _report(error: BaseException) -> Exit:
    """Print the line of an error to stderr and return its exit code."""
    text, code = error_line(error)
    print(f"tailrace: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
