"""Checks of the preconditions of a pipeline. Each failed check names its fix."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tailrace.errors import Exit, error_line
from tailrace.streams.log.topology import topology

if TYPE_CHECKING:
    from tailrace.app.settings import Settings
    from tailrace.declaration.pipeline import Pipeline
    from tailrace.streams.log.base import Log

SKEW_S = 5.0
"""Clock difference between machines, in seconds, above which the check fails."""
DISK_FREE = 1 << 30
"""Free disk space, in bytes, below which the check warns."""
FAILED_STATES = ("failed", "unreachable")
SUPPORTED = ((3, 11), (3, 15))
"""Supported Python versions: the first, and the first that is not supported."""


class Check(NamedTuple):
    """Result of one check. `warning`: the pipeline can run; `failed` or `unreachable`: it cannot run properly."""

    check: str
    state: Literal["ok", "warning", "failed", "unreachable"]
    finding: str
    fix: str = ""


def examine(settings: Settings) -> list[Check]:
    """Run all checks, in order. Never raises: an error becomes a failed check."""
    return [*_software(), *_disk(), *_keys(settings), *_store(settings), *_declared(settings)]


def exit_code(checks: list[Check]) -> Exit:
    """Return UNREACHABLE if a check is `unreachable`, FAILED if one is `failed`, else OK."""
    states = {check.state for check in checks}
    if "unreachable" in states:
        return Exit.UNREACHABLE
    return Exit.FAILED if "failed" in states else Exit.OK


def _software() -> Iterator[Check]:
    low, high = SUPPORTED
    version = platform.python_version_tuple()
    supported = low <= (int(version[0]), int(version[1])) < high
    fix = f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    yield Check("python", "ok" if supported else "failed", platform.python_version(), "" if supported else fix)
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", "failed", error_line(error)[0], "install it: pip install torch")
        return
    yield Check("torch", "ok", torch.__version__)
    if torch.cuda.is_available():
        yield Check("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}")
    else:
        yield Check("device", "ok", f"cpu, {torch.get_num_threads()} threads")


def _disk() -> Iterator[Check]:
    directory = Path.cwd()
    free = shutil.disk_usage(directory).free
    enough = free >= DISK_FREE
    fix = "" if enough else f"free some space: at least {DISK_FREE >> 30} GiB"
    yield Check("disk", "ok" if enough else "warning", f"{free / (1 << 30):.1f} GiB free at {directory}", fix)


def _keys(settings: Settings) -> Iterator[Check]:
    from tailrace.inference.releases.signing import SIGNING_KEY, load_signing_key, load_trusted_keys, read_trusted_keys

    keys, directory = settings.keys, settings.keys.directory
    path = keys.signing or directory / SIGNING_KEY
    try:
        if keys.trusted:
            trusted = read_trusted_keys(keys.trusted, keys.revoked)
        else:
            trusted = load_trusted_keys(directory, keys.revoked)
        signing = load_signing_key(path) if keys.signing or path.exists() else None
    except Exception as error:
        yield Check("keys", "failed", error_line(error)[0], "correct the file, or create new keys: tailrace keys new")
        return
    if signing is None and not trusted.ids:
        fix = "`tailrace run` and the retrainer create one; on other machines copy the retrainer's trusted/ here"
        yield Check("keys", "warning", f"no key in {directory}: a worker would not start", fix)
    elif signing is not None and signing.key_id not in trusted.ids:
        fix = f"put its public key into {directory / 'trusted'}"
        yield Check("keys", "failed", f"the signing key {signing.key_id} is not trusted", fix)
    else:
        signer = f"{signing.key_id} signs" if signing else "no signing key on this machine"
        yield Check("keys", "ok", f"{len(trusted.ids)} trusted, {signer}")


def _store(settings: Settings) -> Iterator[Check]:
    from tailrace.app.factory import configured_store
    from tailrace.inference.releases.storage import StoreUnreachable

    url = settings.releases.store
    if url is None:
        return
    try:
        configured_store(settings)
        yield Check("store", "ok", url)
    except StoreUnreachable as error:
        fix = "check releases.store, that its fsspec driver is installed, and its credentials"
        yield Check("store", "unreachable", error_line(error)[0], fix)


def _declared(settings: Settings) -> Iterator[Check]:
    from tailrace.app.pipeline_file import load_pipeline

    pipeline: Pipeline | None = None
    try:
        pipeline = load_pipeline(settings.pipeline)
        yield Check("pipeline", "ok", f"{pipeline.name}, {pipeline.task.kind} label")
    except Exception as error:
        yield Check("pipeline", "failed", error_line(error)[0], "correct the file, or name another with --pipeline")
    yield from _log(settings, pipeline)


def _log(settings: Settings, pipeline: Pipeline | None) -> Iterator[Check]:
    from tailrace.app.factory import open_configured_log

    try:
        log = open_configured_log(settings)
    except Exception as error:
        yield _log_failure(error)
        return
    try:
        yield Check("log", "ok", f"{settings.log.url}, {len(log.topics())} topics")
        if pipeline is not None:
            yield from _topics(log, pipeline)
            yield _clock(log, pipeline, time.time)
    except Exception as error:
        yield _log_failure(error)
    finally:
        log.close()


def _log_failure(error: Exception) -> Check:
    text, code = error_line(error)
    state: Literal["unreachable", "failed"] = "unreachable" if code is Exit.UNREACHABLE else "failed"
    return Check("log", state, text, "check log.url and log.options, and that the broker is running")


def _topics(log: Log, pipeline: Pipeline) -> Iterator[Check]:
    topics = pipeline.topics
    partitions = log.topics()
    missing = [topic.name for topic in topology(pipeline, 1) if topic.name not in partitions]
    if missing:
        fix = "`tailrace run` and `tailrace send` create them; if they must not, create them by hand"
        yield Check("topics", "warning", f"missing: {', '.join(missing)}", fix)
    else:
        yield Check("topics", "ok", f"all {len(topology(pipeline, 1))} exist")
    labels = topics.labels_by_id if pipeline.label.rekey else topics.labels
    counts = {topic: partitions[topic] for topic in (topics.predictions, labels) if topic in partitions}
    if len(set(counts.values())) > 1:
        fix = f"recreate {topics.predictions} with {counts[labels]} partitions, or declare the label with rekey=True"
        shown = ", ".join(f"{topic} {count}" for topic, count in counts.items())
        yield Check("partitions", "failed", f"they must be equal: {shown}", fix)
    elif counts:
        yield Check("partitions", "ok", f"{next(iter(counts.values()))} in {' and '.join(counts)}")
    if partitions.get(topics.models, 1) != 1:
        yield Check(
            "models",
            "failed",
            f"{topics.models} has {partitions[topics.models]} partitions",
            "recreate it with one partition",
        )


def _clock(log: Log, pipeline: Pipeline, now: Callable[[], float]) -> Check:
    """Compare the newest release record with the clock: a timestamp in the future means that two clocks differ."""
    from tailrace.streams.log.browse import newest

    topic = pipeline.topics.models
    records = newest(log, topic, 1)[0] if log.partitions(topic) else []
    ahead = max((record.timestamp / 1000 for record in records), default=0.0) - now()
    if ahead > SKEW_S:
        fix = "synchronise the clocks of both machines (NTP)"
        return Check("clock", "failed", f"the newest record of {topic} is {ahead:.1f} s in the future", fix)
    return Check("clock", "ok", "no record is in the future" if records else "no record to compare with yet")
