"""`models`: the releases in the models topic, and which of them serves."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.common import (
    JsonOption,
    LogOption,
    PipelineOption,
    emit,
    load,
    note,
    opened,
    progress,
    sentences,
    table,
)
from tailrace.declaration.durations import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.inference.releases.signing import TrustedKeys
    from tailrace.retrain.control.model_topic import Models
    from tailrace.retrain.control.publisher import Publisher
    from tailrace.streams.log.base import Log

app = typer.Typer(help="Releases: list, show, verify, rebuild, promote, roll back.")
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept with the change.")]


@app.command("ls")
def ls(pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List the releases, oldest first."""
    with _models(pipeline, log) as models:
        rows = [_row(models, version) for version in sorted(models.registry.releases)]
    if not rows and not as_json:
        note("no release yet: release 0, the base rate, serves until the first training has passed the gate")
    if not as_json:
        rows = [{**row, "created": utc_text(row["created"]), "aliases": ",".join(row["aliases"])} for row in rows]
    table(rows, as_json=as_json)


@app.command("show")
def show(
    version: Annotated[str, typer.Argument(help="A version, `champion` or `latest`.")] = "champion",
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one release: where it comes from, what it learned, why, and how it was judged."""
    from tailrace.explain.release import builtin, lines
    from tailrace.inference.releases.manifest import parse

    with _models(pipeline, log) as models:
        number = _version(models, version)
        if number == 0:
            note("release 0 is the base rate of the declaration: it has no weights")
            if as_json:
                emit({"version": 0, "aliases": _aliases(models, 0)})
            return
        models.manifest(number)
        signed, manifest = parse(models.registry.releases[number].signed)
        told = signed, manifest, _aliases(models, number), models.find
    if as_json:
        emit(builtin(*told))
    else:
        sentences(lines(*told))


@app.command("verify")
def verify(
    version: Annotated[str | None, typer.Argument(help="A version, `champion` or `latest`; else all.")] = None,
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check signature, digest and weights of releases, as every worker does before serving one."""
    from tailrace.app.factory import trusted_keys
    from tailrace.errors import Exit

    trusted = trusted_keys(load(pipeline, log)[1])
    with _models(pipeline, log) as models:
        versions = sorted(models.registry.releases) if version is None else [_version(models, version)]
        rows = [{"version": number, "verdict": _verdict(models, number, trusted)} for number in versions if number]
    table(rows, as_json=as_json)
    if any(row["verdict"] != "ok" for row in rows):
        raise typer.Exit(Exit.REFUSED)


@app.command("rebuild")
def rebuild(
    version: Annotated[str, typer.Argument(help="A version, `champion` or `latest`.")],
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a release again from the offsets, base and seed that it names, and compare the weights bit for bit.

    Exit code 0: they are the same; 1: they differ.
    """
    from tailrace.app.factory import code_digest, trusted_keys
    from tailrace.errors import Exit, UserError
    from tailrace.explain.release import difference_reason
    from tailrace.retrain.control.rebuild import Rebuilder

    declared, settings = load(pipeline, log)
    trusted, started = trusted_keys(settings), time.perf_counter()
    with _opened_models(declared, settings) as (opened_log, models):
        number = _version(models, version)
        if number == 0:
            raise UserError("release 0 is the base rate of the declaration: no training made it", Exit.USAGE)
        manifest = models.manifest(number)
        with progress(f"release {number}: reading") as tell:

            def report(done: int, of: int) -> None:
                if done == 0:
                    note(f"release {number}: {manifest.examples:,} examples were read, now they are learned again")
                tell(f"release {number}: learning", done, of)

            rebuilt = Rebuilder(opened_log, models, trusted, declared).rebuild(number, report)
    seconds = round(time.perf_counter() - started, 3)
    if as_json:
        emit(
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
        outcome = "the same weights, bit for bit" if rebuilt.equal else "other weights"
        print(f"release {number}: {outcome}, from {rebuilt.examples:,} examples in {seconds:.1f} s")
        sentences([("published", manifest.sha256), ("rebuilt", rebuilt.sha256)])
    if not rebuilt.equal:
        note(difference_reason(manifest, code_digest(declared)))
        raise typer.Exit(Exit.FAILED)


@app.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="The version that shall serve; 0 is the base rate.")],
    reason: Reason = "by hand",
    pipeline: PipelineOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release the champion, unless workers would refuse it; they swap it in at once."""
    from tailrace.app import operations as operating

    with _publisher(pipeline, log) as publisher:
        before, number = publisher.models.champion, _version(publisher.models, version)
        operating.promote(publisher, number, reason)
    _changed(before, number, as_json)


@app.command("rollback")
def rollback(
    reason: Reason = "by hand", pipeline: PipelineOption = None, log: LogOption = None, as_json: JsonOption = False
) -> None:
    """Make the champion's parent the champion again: the release it was measured against."""
    from tailrace.app import operations as operating

    with _publisher(pipeline, log) as publisher:
        before, number = publisher.models.champion, operating.rollback(publisher, reason)
    _changed(before, number, as_json)


def _changed(before: int, after: int, as_json: bool) -> None:
    if as_json:
        emit({"champion": after, "before": before})
    else:
        print(f"champion: {before} -> {after}")


@contextmanager
def _models(pipeline: str | None, log: str | None) -> Iterator[Models]:
    with _opened_models(*load(pipeline, log)) as (_, models):
        yield models


@contextmanager
def _opened_models(declared: Pipeline, settings: Settings) -> Iterator[tuple[Log, Models]]:
    from tailrace.retrain.control.model_topic import Models

    with opened(settings) as opened_log:
        yield opened_log, Models(opened_log, declared.topics.models)


@contextmanager
def _publisher(pipeline: str | None, log: str | None) -> Iterator[Publisher]:
    from tailrace.app.operations import operator

    declared, settings = load(pipeline, log)
    with opened(settings) as opened_log, operator(opened_log, declared, settings) as publisher:
        yield publisher


def _version(models: Models, text: str) -> int:
    from tailrace.errors import Exit, UserError

    if text in ("champion", "latest"):
        return models.champion if text == "champion" else models.registry.latest
    alias = models.registry.aliases.get(text)
    if alias is not None:
        return alias.version
    if not text.isdigit():
        raise UserError(f"{text!r} is no release: write a version, champion or latest", Exit.USAGE)
    return int(text)


def _aliases(models: Models, version: int) -> list[str]:
    return [name for name, alias in models.registry.aliases.items() if alias.version == version]


def _row(models: Models, version: int) -> dict[str, Any]:
    manifest = models.manifest(version)
    judged = {name: values for name, values in manifest.metrics.items() if name == "candidate"}
    return {
        "version": version,
        "created": manifest.created,
        "parent": manifest.parent,
        "examples": manifest.examples,
        "reason": manifest.reason,
        **judged.get("candidate", {}),
        "bytes": manifest.size,
        "aliases": _aliases(models, version),
    }


def _verdict(models: Models, version: int, trusted: TrustedKeys) -> str:
    """`ok`, or why a worker would refuse the release."""
    from tailrace.inference.releases.manifest import Refused

    try:
        models.verified(version, trusted)
    except Refused as refused:
        return " ".join(str(refused).split())
    return "ok"
