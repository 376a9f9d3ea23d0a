"""Command group `models`: list, inspect and verify the releases of a pipeline, and choose the one that serves."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    load_pipeline_and_settings,
    open_log,
    open_pipeline,
    print_facts,
    print_json,
    print_message,
    print_table,
    progress_bar,
)
from tailrace.declaration.durations import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.inference.releases.manifest import Manifest
    from tailrace.inference.releases.signing import TrustedKeys
    from tailrace.retrain.control.model_topic import Models
    from tailrace.retrain.control.publisher import Publisher
    from tailrace.retrain.control.rebuild import Rebuilt
    from tailrace.streams.log.base import Log

VERSION_HELP = "Release version, `champion` or `latest`."

app = typer.Typer(help="Releases: list, show, verify, rebuild, promote, roll back.")
ReasonOption: TypeAlias = Annotated[str, typer.Option("--reason", "-m", help="Reason, recorded with the change.")]


@app.command("ls")
def ls(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List the releases, oldest first."""
    with _loaded_models(pipeline, log) as models:
        rows = [_row(models, version) for version in sorted(models.registry.releases)]
    if not rows and not as_json:
        print_message("no release yet: release 0 (the base-rate model) serves until a training run has passed the gate")
    if not as_json:
        rows = [{**row, "created": utc_text(row["created"]), "aliases": ",".join(row["aliases"])} for row in rows]
    print_table(rows, as_json=as_json)


@app.command("show")
def show(
    version: Annotated[str, typer.Argument(help=VERSION_HELP)] = "champion",
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a release: its lineage, its training data, the reason for its training, and the verdict of the gate."""
    from tailrace.explain.release import builtin, lines
    from tailrace.inference.releases.manifest import parse

    with _loaded_models(pipeline, log) as models:
        number = _version(models, version)
        if number == 0:
            print_message("release 0 is the base-rate model of the declaration: it has no weights")
            if as_json:
                print_json({"version": 0, "aliases": _aliases(models, 0)})
            return
        models.manifest(number)
        signed, manifest = parse(models.registry.releases[number].signed)
        description = signed, manifest, _aliases(models, number), models.find
    if as_json:
        print_json(builtin(*description))
    else:
        print_facts(lines(*description))


@app.command("verify")
def verify(
    version: Annotated[str | None, typer.Argument(help=f"{VERSION_HELP} Default: all releases.")] = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check signature, digest and weights of releases, as a worker does before it serves a release.

    Exit code 3: a worker would refuse at least one of them.
    """
    from tailrace.app.factory import trusted_keys
    from tailrace.errors import Exit

    trusted = trusted_keys(load_pipeline_and_settings(pipeline, log)[1])
    with _loaded_models(pipeline, log) as models:
        versions = sorted(models.registry.releases) if version is None else [_version(models, version)]
        rows = [{"version": number, "verdict": _verdict(models, number, trusted)} for number in versions if number]
    print_table(rows, as_json=as_json)
    if any(row["verdict"] != "ok" for row in rows):
        raise typer.Exit(Exit.REFUSED)


@app.command("rebuild")
def rebuild(
    version: Annotated[str, typer.Argument(help=VERSION_HELP)],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a release again from its recorded offsets, base release and seed, and compare the weights bit for bit.

    Exit code 0: the weights are equal; 1: they differ.
    """
    from tailrace.app.factory import code_digest, trusted_keys
    from tailrace.errors import Exit, UserError
    from tailrace.explain.release import difference_reason

    declaration, settings = load_pipeline_and_settings(pipeline, log)
    trusted, started = trusted_keys(settings), time.perf_counter()
    with _open_models(declaration, settings) as (opened_log, models):
        number = _version(models, version)
        if number == 0:
            raise UserError("release 0 is the base-rate model of the declaration: it was not trained", Exit.USAGE)
        manifest = models.manifest(number)
        rebuilt = _rebuild(opened_log, models, trusted, declaration, manifest)
    seconds = round(time.perf_counter() - started, 3)
    if as_json:
        print_json(
            {
                "version": number,
                "sha256": manifest.sha256,
                "rebuilt": rebuilt.sha256,
                "equal": rebuilt.equal,
                "examples": rebuilt.examples,
                "seconds": seconds,
            }
        )
    else:
        outcome = "equal weights, bit for bit" if rebuilt.equal else "different weights"
        print(f"release {number}: {outcome}, from {rebuilt.examples:,} examples in {seconds:.1f} s")
        print_facts([("published", manifest.sha256), ("rebuilt", rebuilt.sha256)])
    if not rebuilt.equal:
        print_message(difference_reason(manifest, code_digest(declaration)))
        raise typer.Exit(Exit.FAILED)


def _rebuild(log: Log, models: Models, trusted: TrustedKeys, declaration: Pipeline, manifest: Manifest) -> Rebuilt:
    """Train a release again while a progress bar is shown; return whether the weights are equal."""
    from tailrace.retrain.control.rebuild import Rebuilder

    name = f"release {manifest.version}"
    with progress_bar(f"{name}: reading") as report_progress:

        def report(done: int, total: int) -> None:
            if done == 0:
                print_message(f"{name}: {manifest.examples:,} examples were read; training on them")
            report_progress(f"{name}: training", done, total)

        return Rebuilder(log, models, trusted, declaration).rebuild(manifest.version, report)


@app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="Release version to promote (0 = base-rate model).")],
    reason: ReasonOption = "by hand",
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release the champion, unless workers would refuse it. Workers swap it in at once."""
    from tailrace.app import operations

    with _publisher(pipeline, log) as publisher:
        before, number = publisher.models.champion, _version(publisher.models, version)
        operations.promote(publisher, number, reason)
    _print_champion(before, number, as_json)


@app.command("rollback")
def rollback(
    reason: ReasonOption = "by hand",
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the parent of the champion, the release that it replaced, the champion again."""
    from tailrace.app import operations

    with _publisher(pipeline, log) as publisher:
        before, number = publisher.models.champion, operations.rollback(publisher, reason)
    _print_champion(before, number, as_json)


def _print_champion(before: int, after: int, as_json: bool) -> None:
    if as_json:
        print_json({"champion": after, "before": before})
    else:
        print(f"champion: {before} -> {after}")


@contextmanager
def _loaded_models(pipeline: str | None, log: str | None) -> Iterator[Models]:
    with _open_models(*load_pipeline_and_settings(pipeline, log)) as (_, models):
        yield models


@contextmanager
def _open_models(declaration: Pipeline, settings: Settings) -> Iterator[tuple[Log, Models]]:
    from tailrace.retrain.control.model_topic import Models

    with open_log(settings) as opened_log:
        yield opened_log, Models(opened_log, declaration.topics.models)


@contextmanager
def _publisher(pipeline: str | None, log: str | None) -> Iterator[Publisher]:
    from tailrace.app.operations import operator

    with open_pipeline(pipeline, log) as opened, operator(opened.log, opened.pipeline, opened.settings) as publisher:
        yield publisher


def _version(models: Models, text: str) -> int:
    """Parse a version, `champion`, `latest` or another alias. Raises UserError."""
    from tailrace.errors import Exit, UserError

    if text in ("champion", "latest"):
        return models.champion if text == "champion" else models.registry.latest
    alias = models.registry.aliases.get(text)
    if alias is not None:
        return alias.version
    if not text.isdigit():
        raise UserError(f"{text!r} is not a release: write a version number, champion or latest", Exit.USAGE)
    return int(text)


def _aliases(models: Models, version: int) -> list[str]:
    return [name for name, alias in models.registry.aliases.items() if alias.version == version]


def _row(models: Models, version: int) -> dict[str, Any]:
    manifest = models.manifest(version)
    return {
        "version": version,
        "created": manifest.created,
        "parent": manifest.parent,
        "examples": manifest.examples,
        "reason": manifest.reason,
        **manifest.metrics.get("candidate", {}),
        "bytes": manifest.size,
        "aliases": _aliases(models, version),
    }


def _verdict(models: Models, version: int, trusted: TrustedKeys) -> str:
    """Return `ok`, or the reason for which a worker would refuse the release."""
    from tailrace.inference.releases.manifest import Refused

    try:
        models.verified(version, trusted)
    except Refused as refused:
        return " ".join(str(refused).split())
    return "ok"
