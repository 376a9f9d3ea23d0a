"""The command line's entry. Commands live in `tailrace.cli` and import what they need when they run.

So `tailrace --help` loads neither torch nor Kafka. Every error ends as one line on stderr and an exit code, as
`tailrace.errors` tells.
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
    rich_markup_mode=None,  # plain help: fancier help takes three times as long to load
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


def _version(wanted: bool) -> None:
    if wanted:
        print(f"tailrace {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    config: Annotated[str | None, typer.Option("--config", help="The settings file, instead of tailrace.toml.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Streaming inference with continuous retraining.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 refused, 4 a dependency is unreachable, 130 interrupted.
    """
    # The environment, so that child processes know it too.
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
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)
    if returned == Exit.INTERRUPTED:  # some versions of the command-line library make this of Ctrl-C
        return _report(KeyboardInterrupt())
    return returned if isinstance(returned, int) else Exit.OK


def _failed(error: BaseException) -> int:
    if os.environ.get("TAILRACE_DEBUG") == "1":
        traceback.print_exception(error)
    if type(error).__name__ == "Abort":  # and others this
        return _report(KeyboardInterrupt())
    if hasattr(error, "format_message"):  # its usage errors; their module differs from version to version
        path = getattr(getattr(error, "ctx", None), "command_path", "tailrace")
        print(f"tailrace: {error.format_message()} (see `{path} --help`)".replace("\n", " "), file=sys.stderr)
        return Exit.USAGE
    return _report(error)


def main() -> None:
    """The `tailrace` command."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()


def _report(error: BaseException) -> Exit:
    """Print the error's line on stderr and return its exit code."""
    text, code = error_line(error)
    print(f"tailrace: {text}", file=sys.stderr)
    return code
