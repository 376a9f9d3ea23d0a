"""`doctor` and `config`: what is set, and whether it works."""

from __future__ import annotations

import typer

from tailrace.cli.common import JsonOption, LogOption, PipelineOption, emit, load_settings, log_to_stderr, note, table

config = typer.Typer(help="Settings.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)


@config.command("show")
def show(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Show each setting and where it came from; secrets are masked."""
    from tailrace.app.settings import load_settings as load_all

    loaded = load_all({"pipeline": pipeline, "log.url": log})
    table([{"setting": row.name, "value": row.value, "from": row.origin} for row in loaded.rows()], as_json=as_json)


def doctor(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """Check log, topics, clock, keys, device and disk; each failure names its fix."""
    from tailrace.app.doctor import BAD, examine, exit_code

    settings = load_settings(pipeline=pipeline, log__url=log)
    log_to_stderr()
    checks = examine(settings)
    if as_json:
        emit([check._asdict() for check in checks])
    else:
        for check in checks:
            print(
                f"{check.state:12}{check.check:12}{check.finding}" + (f"\n{'':24}fix: {check.fix}" if check.fix else "")
            )
    failures, warnings = (sum(check.state in states for check in checks) for states in (BAD, ("warning",)))
    note(f"{len(checks)} checks, {failures} failed, {warnings} warnings")
    raise typer.Exit(exit_code(checks))
