"""Commands `doctor` and `config show`: checks of the environment, and the settings in force."""

from __future__ import annotations

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    load_settings,
    log_to_stderr,
    print_json,
    print_message,
    print_table,
)

config = typer.Typer(help="Settings.")


def register(app: typer.Typer) -> None:
    """Add the command `doctor` to `app`."""
    app.command()(doctor)


@config.command("show")
def show(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Show each setting and its origin. Secrets are masked."""
    from tailrace.app.settings import load_settings as load_with_origins

    loaded = load_with_origins({"pipeline": pipeline, "log.url": log})
    rows = [{"setting": row.name, "value": row.value, "from": row.origin} for row in loaded.rows()]
    print_table(rows, as_json=as_json)


def doctor(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Check software, disk, keys, pipeline file, log, topics and clock. Each failed check names its fix.

    Exit code 1: a check failed; 4: the log or the store is unreachable.
    """
    from tailrace.app.doctor import FAILED_STATES, examine, exit_code

    settings = load_settings(pipeline=pipeline, log__url=log)
    log_to_stderr()
    checks = examine(settings)
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            fix = f"\n{'':24}fix: {check.fix}" if check.fix else ""
            print(f"{check.state:12}{check.check:12}{check.finding}{fix}")
    failures, warnings = (sum(check.state in states for check in checks) for states in (FAILED_STATES, ("warning",)))
    print_message(f"{len(checks)} checks, {failures} failed, {warnings} warnings")
    raise typer.Exit(exit_code(checks))
