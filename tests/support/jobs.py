"""Rows and jobs for tests of training."""

from __future__ import annotations

from support import retrain_pipeline as tiny

from tailrace.declaration.training import Training
from tailrace.inference.models.spec import ModelSpec
from tailrace.retrain.selection.buffer import Row
from tailrace.retrain.selection.examples import ExampleDecoder
from tailrace.retrain.worker.protocol import Job
from tailrace.streams.log.codec import encode
from tailrace.streams.log.records import Record


def rows(count: int, start: int = 0) -> list[Row]:
    """Return training rows of the examples `start` and on."""
    examples = tiny.examples(count, start)
    records = [Record("e", 0, n, 0, None, encode(example)) for n, example in enumerate(examples)]
    return ExampleDecoder(ModelSpec.of(tiny.pipeline)).rows(records).rows


def job(plan: Training = tiny.PLAN, champion: bytes | None = None, fresh: int = 300, seed: int = 1) -> Job:
    """Return a job with 300 training rows and 100 held-out rows."""
    selected = rows(400)
    return Job(
        features=[row.features for row in selected],
        derived=[row.derived for row in selected],
        targets=[row.target for row in selected],
        train=300,
        fresh=fresh,
        champion=champion,
        plan=plan,
        seed=seed,
    )
