"""The doctor: what must hold for a pipeline to run, checked one by one; each failure names its fix."""

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
DISK_FREE = 1 << 30
BAD = ("failed", "unreachable")
SUPPORTED = ((3, 11), (3, 15))


class Check(NamedTuple):
    """One finding. `failed`: the pipeline cannot run as it should; `warning`: it can."""

    check: str
    state: Literal["ok", "warning", "failed", "unreachable"]
    finding: str
    fix: str = ""


def examine(settings: Settings) -> list[Check]:
    """All checks, in order. Never raises: what goes wrong is a finding."""
    return [*_software(), *_disk(settings), *_keys(settings), *_store(settings), *_declared(settings)]


def exit_code(checks: list[Check]) -> Exit:
    """UNREACHABLE when the log could not be reached, FAILED when a check failed, else OK."""
    states = {check.state for check in checks}
    if "unreachable" in states:
        return Exit.UNREACHABLE
    return Exit.FAILED if "failed" in states else Exit.OK


def _software() -> Iterator[Check]:
    low, high = SUPPORTED
    version = platform.python_version_tuple()
    fine = low <= (int(version[0]), int(version[1])) < high
    fix = f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}"
    yield Check("python", "ok" if fine else "failed", platform.python_version(), "" if fine else fix)
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


def _disk(settings: Settings) -> Iterator[Check]:
    where = Path.cwd()
    free = shutil.disk_usage(where).free
    enough = free >= DISK_FREE
    fix = "" if enough else f"free some space: at least {DISK_FREE >> 30} GiB"
    yield Check("disk", "ok" if enough else "warning", f"{free / (1 << 30):.1f} GiB free at {where}", fix)


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
        yield Check("keys", "failed", error_line(error)[0], "correct the file, or make new keys: tailrace keys new")
        return
    if signing is None and not trusted.ids:
        fix = "`tailrace run` and the retrainer make one; elsewhere copy the retrainer's trusted/ here"
        yield Check("keys", "warning", f"none in {directory}: a worker would not start", fix)
    elif signing is not None and signing.key_id not in trusted.ids:
        fix = f"put its public half into {directory / 'trusted'}"
        yield Check("keys", "failed", f"the signing key {signing.key_id} is not trusted", fix)
    else:
        role = f"{signing.key_id} signs" if signing else "none signs here"
        yield Check("keys", "ok", f"{len(trusted.ids)} trusted, {role}")


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
        yield _unopened(error)
        return
    try:
        yield Check("log", "ok", f"{settings.log.url}, {len(log.topics())} topics")
        if pipeline is not None:
            yield from _topics(log, pipeline)
            yield _clock(log, pipeline, time.time)
    except Exception as error:
        yield _unopened(error)
    finally:
        log.close()


def _unopened(error: Exception) -> Check:
    text, code = error_line(error)
    state: Literal["unreachable", "failed"] = "unreachable" if code is Exit.UNREACHABLE else "failed"
    return Check("log", state, text, "check log.url, that the broker runs, and log.options")


def _topics(log: Log, pipeline: Pipeline) -> Iterator[Check]:
    topics = pipeline.topics
    found = log.topics()
    missing = [topic.name for topic in topology(pipeline, 1) if topic.name not in found]
    if missing:
        fix = "they are made by `tailrace run` and `tailrace send`; elsewhere, create them by hand"
        yield Check("topics", "warning", f"missing: {', '.join(missing)}", fix)
    else:
        yield Check("topics", "ok", f"all {len(topology(pipeline, 1))} there")
    labels = topics.labels_by_id if pipeline.label.rekey else topics.labels
    counts = {topic: found[topic] for topic in (topics.predictions, labels) if topic in found}
    if len(set(counts.values())) > 1:
        fix = f"recreate {topics.predictions} with {counts[labels]} partitions, or declare the label with rekey=True"
        shown = ", ".join(f"{topic} {count}" for topic, count in counts.items())
        yield Check("partitions", "failed", f"they must be equal: {shown}", fix)
    elif counts:
        yield Check("partitions", "ok", f"{next(iter(counts.values()))} in {' and '.join(counts)}")
    if found.get(topics.models, 1) != 1:
        yield Check(
            "models", "failed", f"{topics.models} has {found[topics.models]} partitions", "recreate it with one"
        )


def _clock(log: Log, pipeline: Pipeline, now: Callable[[], float]) -> Check:
    """Records that a role has just written cannot be younger than now, unless two clocks differ."""
    from tailrace.streams.log.browse import newest

    topic = pipeline.topics.models
    records = newest(log, topic, 1)[0] if log.partitions(topic) else []
    ahead = max((record.timestamp / 1000 for record in records), default=0.0) - now()
    if ahead > SKEW_S:
        fix = "synchronise the clocks of both machines (NTP)"
        return Check("clock", "failed", f"the newest record of {topic} lies {ahead:.1f} s in the future", fix)
    return Check("clock", "ok", "no record lies in the future" if records else "no record to compare with yet")
