"""A backtest predicts the behaviour of the live pipeline: both get the same flights, release by release."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from support.waiting import until
from torch import Tensor

from tailrace.app.factory import create_topics, open_configured_log, signing_key
from tailrace.app.pipeline_file import load_pipeline
from tailrace.app.settings import KeysSettings, LogSettings, MonitoringSettings, Settings, as_environment
from tailrace.app.supervisor import Roles
from tailrace.backtest.history.arrays import history
from tailrace.backtest.policy import Policy
from tailrace.backtest.simulation import Rates, Simulation
from tailrace.datafiles.read import Moment, replay, rows
from tailrace.demo.flights import COLUMNS, DATA
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import serialise
from tailrace.retrain.control.model_topic import Models
from tailrace.retrain.training.loop import score
from tailrace.streams.log.base import Log, TopicPartition
from tailrace.streams.log.records import Prediction

DECLARATION = """
from tailrace import Label, Online, Pipeline
from tailrace.demo.flights import Flight

pipeline = Pipeline("flights", event=Flight, label=Label("late", wait="36h"), online=Online(labels=50, seconds=0.0))
"""
EVENTS = 700


def test_backtest_and_live_agree_on_releases_and_predictions(tmp_path: Path) -> None:
    """Backtest and live pipeline publish the same bytes as releases and give the same scores, release by release.

    700 flights with their real label delays go to real processes on the embedded log. Labels wait for the predictions
    before them, and the next record waits for the release if a label completes an update. So both learn the same
    labels in the same order and groups.
    """
    file = tmp_path / "pipeline.py"
    file.write_text(DECLARATION)
    pipeline = load_pipeline(str(file))
    moments = list(replay(islice(rows(DATA), EVENTS), pipeline, COLUMNS))

    states: dict[int, dict[str, Tensor]] = {}
    stream, instant = history(moments, pipeline), Rates(run_rows=math.inf, update_labels=math.inf)
    simulated = Simulation(Policy.of(pipeline), stream.as_partial(), instant, keep=states.__setitem__).run()
    assert simulated.published >= 8

    settings = Settings(
        pipeline=str(file),
        log=LogSettings(url=f"sqlite:///{tmp_path / 'log.db'}", partitions=1),
        keys=KeysSettings(directory=tmp_path / "keys"),
        monitoring=MonitoringSettings(enabled=False),
    )
    log = open_configured_log(settings)
    create_topics(log, pipeline, settings)
    signing_key(settings)
    with Roles(str(file), as_environment(settings), logs=tmp_path) as roles:
        live = Live(log, roles)
        live.send(moments)
        live.until(lambda: live.predicted() == EVENTS)
    predictions = live.predictions()
    digests = {
        v: Models(log, "flights.models").manifest(v).sha256 for v in Models(log, "flights.models").registry.releases
    }
    log.close()
    assert len(digests) >= 5
    assert digests == {version: hashlib.sha256(serialise(states[version])).hexdigest() for version in digests}
    served = Counter(prediction.release for prediction in predictions)
    assert len(served) >= 8, f"releases at work: {served}"
    for version in set(served) - {0}:
        rows_of = [n for n, prediction in enumerate(predictions) if prediction.release == version]
        module = ModelSpec.of(pipeline).build()
        module.load_state_dict(states[version])
        due = score(module, stream.inputs.take(rows_of), pipeline.task)
        np.testing.assert_allclose([predictions[n].scores for n in rows_of], due, atol=1e-5)


class Live:
    """A sender of moments to live roles that waits for them where the backtest would."""

    def __init__(self, log: Log, roles: Roles) -> None:
        self._log, self._roles = log, roles

    def send(self, moments: list[Moment]) -> None:
        """Send them in order: a label after the predictions of all events before it, and the record after each 50th
        label after the release of that update."""
        writer, events, labels = self._log.writer(), 0, 0
        for moment in moments:
            if moment.kind == "event":
                events += 1
            else:
                labels += 1
                self.until(lambda sent=events: self.predicted() == sent)  # type: ignore[misc]
            writer.write([moment.out])
            writer.commit()
            writer.flush()
            if moment.kind == "label" and labels % 50 == 0:
                self.until(lambda due=labels // 50: self.published() == due)  # type: ignore[misc]
        writer.close()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition; fail if a role has died."""
        until(condition, check=self._roles.check)

    def predicted(self) -> int:
        """Return the number of predictions."""
        return sum(self._log.end_positions("flights.predictions").values())

    def published(self) -> int:
        """Return the version of the champion."""
        return Models(self._log, "flights.models").champion

    def predictions(self) -> list[Prediction]:
        """Return all predictions in the order of the events."""
        batches = self._log.scan(TopicPartition("flights.predictions", 0), 0, EVENTS)
        return [msgspec.json.decode(record.value or b"", type=Prediction) for batch in batches for record in batch]
