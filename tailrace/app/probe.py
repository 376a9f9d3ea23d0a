"""Processing of one record in a process of its own, to learn whether it ends a process.

`RecordProbe` starts the command of the role again with `--probe`. The child builds the role's step, reads the record
from the log, processes it and writes nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing

import structlog

from tailrace.app.factory import join_labels, join_step, open_configured_log, rekey_step, rekeyer_group, score_step
from tailrace.app.settings import Settings
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import Exit, UserError
from tailrace.streams.log.base import Batch, Log, TopicPartition
from tailrace.streams.log.records import Record
from tailrace.streams.runtime.step import Step

TRIES = 2
LIMIT_S = 60.0  # a child that takes longer counts as dead: the record keeps the role busy for ever
_BEGUN, _DONE = "processing", "processed"
_log = structlog.get_logger(__name__)


class RecordProbe:
    """Says whether a record ends a process. `arguments`: the command line of this role, without the program."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", "tailrace", *arguments, "--probe"]

    def __call__(self, record: Record) -> bool:
        """Return True if each of TRIES child processes died, or took longer than LIMIT_S, while it processed it."""
        place = f"{record.topic}/{record.partition}/{record.offset}"
        deaths = 0
        while deaths < TRIES and self._dies(place):
            deaths += 1
        _log.warning("a record was processed in a process of its own", record=place, deaths=deaths)
        return deaths == TRIES

    def _dies(self, place: str) -> bool:
        try:
            child = subprocess.run(
                [*self._command, place], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as expired:
            return _BEGUN.encode() in (expired.stdout or b"")
        said = child.stdout.decode(errors="replace").split()
        return _BEGUN in said and _DONE not in said


def process_alone(log: Log, step: Step, topics: Sequence[str], group: str, place: str) -> None:
    """Process the record at `place`, written topic/partition/offset, by the step as its group would; write nothing.

    Prints when processing begins and ends. An exception of the step is no death. Raises UserError for no such record.
    """
    topic, partition, offset = place.rsplit("/", 2)
    at = TopicPartition(topic, int(partition))
    records = next(iter(log.scan(at, int(offset), int(offset) + 1)), [])
    if not records:
        raise UserError(f"there is no record {place!r}", Exit.USAGE)
    committed = log.committed(group, topics)
    held = [TopicPartition(name, at.partition) for name in topics]
    step.restore({tp: committed.get(tp) for tp in held})
    print(_BEGUN, flush=True)
    try:
        step(Batch(records))
    except (Exception, SystemExit) as error:
        _log.info("the step failed", why=f"{type(error).__name__}: {error}")
    print(_DONE, flush=True)


def probe_worker(pipeline: Pipeline, settings: Settings, place: str) -> None:
    """Process one event as a worker would; see `process_alone`."""
    from tailrace.monitoring.telemetry.observers import WorkerObserver

    with ExitStack() as stack:
        log = open_configured_log(settings)
        stack.callback(log.close)
        step = score_step(log, pipeline, settings, stack, WorkerObserver(None))
        process_alone(log, step, [pipeline.topics.events], f"{pipeline.name}.worker", place)


def probe_joiner(pipeline: Pipeline, settings: Settings, place: str) -> None:
    """Process one prediction or label as a joiner would; see `process_alone`."""
    topics, group = [pipeline.topics.predictions, join_labels(pipeline)], f"{pipeline.name}.joiner"
    with closing(open_configured_log(settings)) as log:
        if pipeline.label.rekey and place.rsplit("/", 2)[0] == pipeline.topics.labels:
            topics, group = [pipeline.topics.labels], rekeyer_group(pipeline)
            process_alone(log, rekey_step(log, pipeline), topics, group, place)
        else:
            process_alone(log, join_step(log, pipeline), topics, group, place)
