"""The decision core, driven by random sequences of examples, answers, failures and operators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailrace import Event, Key, Label, Number, Online, Pipeline, Training
from tailrace.declaration.triggers import Labels
from tailrace.inference.releases.manifest import Golden
from tailrace.retrain.control.champion import Champion
from tailrace.retrain.control.core import RetrainingCore
from tailrace.retrain.control.decisions import UpdateEnd, UpdateResult
from tailrace.retrain.control.trigger_state import TriggerState
from tailrace.retrain.selection.buffer import Row
from tailrace.retrain.worker.protocol import Candidate


class Reading(Event, kw_only=True):
    """An event with one number."""

    id: Key
    x: Number


def pipeline(*, online: bool = True) -> Pipeline:
    """A pipeline that updates on each 5 labels and trains a run on each 30."""
    return Pipeline(
        "core",
        event=Reading,
        label=Label("y"),
        retrain=[Labels(30)],
        online=Online(labels=5, seconds=0.0, window=50) if online else False,
        training=Training(window=60, min_examples=20, holdout_least=5, holdout_most=10, clock="event"),
    )


def row(partition: int, offset: int, time: float) -> Row:
    """A row whose label alternates and whose served score was even odds."""
    return Row(partition, offset, time, time + 1.0, float(offset % 2), b"{}", None, 0, [0.5])


def core_of(declared: Pipeline, learned: dict[int, int] | None = None) -> RetrainingCore:
    """A core whose trigger state has seen no label."""
    return RetrainingCore(declared, TriggerState(declared.retrain, since=0.0), learned=learned)


def feed(core: RetrainingCore, count: int, start: int = 0, partition: int = 0) -> None:
    """Let the core read `count` examples, and its triggers see their labels."""
    rows = [row(partition, start + n, float(start + n)) for n in range(count)]
    core.examples_read(rows, {partition: start + count})
    core.triggers.take(np.full(count, 0.7), None, float(start + count))


def candidate(rows: list[Row], *, good: bool) -> Candidate:
    """A candidate that knows all held-out labels, or has each of them wrong."""
    right = np.array([[0.9 if (r.target == 1.0) == good else 0.1] for r in rows], np.float32)
    return Candidate(
        state=b"", warm=False, scores=right.tobytes(), champion_scores=None, golden=Golden(), losses=[], steps=1,
        seconds=0.1, device="cpu",
    )  # fmt: skip


class Machine(RuleBasedStateMachine):
    """The core between a log that grows and trainers that answer, fail, or are overtaken."""

    @initialize(online=st.booleans(), learned=st.integers(0, 20))
    def start(self, online: bool, learned: int) -> None:
        """Start with or without online updates, after an earlier process that learned the first examples."""
        self.declared = pipeline(online=online)
        self.core = core_of(self.declared, {0: learned})
        self.committed = {0: learned, 1: 0}
        self.ends = {0: 0, 1: 0}
        self.learning: list[Row] = []
        self.settled: set[tuple[int, int]] = {(0, offset) for offset in range(learned)}
        self.released, self.now = 0, 0.0

    def settle(self, rows: list[Row]) -> None:
        """Note rows that were learned or skipped."""
        self.settled |= {(r.partition, r.offset) for r in rows}

    @rule(partition=st.sampled_from([0, 1]), count=st.integers(1, 25))
    def read(self, partition: int, count: int) -> None:
        """The log grows, and is read."""
        feed(self.core, count, self.ends[partition], partition)
        self.ends[partition] += count
        self.now += 1.0

    @precondition(lambda self: not self.learning and self.core.update_due(self.now))
    @rule()
    def start_update(self) -> None:
        """An update starts on rows that nothing has settled."""
        update = self.core.start_update(self.now)
        rows = {(r.partition, r.offset) for r in update.rows}
        assert rows
        if update.start is not None and not update.start.warm:
            self.settled -= rows  # fresh weights learn everything again
        assert not rows & self.settled
        self.learning = update.rows
        assert self.core.updating

    @precondition(lambda self: bool(self.learning))
    @rule(good=st.booleans())
    def update_answers(self, good: bool) -> None:
        """The training process answers: what the guard passes is published, from the champion, with its positions."""
        targets = np.array([r.target for r in self.learning], np.float32)
        better = np.where(targets == 1, 0.9, 0.1).astype(np.float32)[:, None]
        before, after = np.full_like(better, 0.5), better if good else 1 - better
        result = self.core.update_learned(before, after, targets)
        rows, self.learning = self.learning, []
        if isinstance(result, UpdateEnd):
            assert result.outcome in ("refused", "overtaken")
            if result.skipped:
                self.settle(rows)
            return
        assert good or len(rows) < 10, "the guard cannot judge fewer than ten labels"
        assert isinstance(result, UpdateResult)
        assert result.parent == self.core.champion.version
        assert result.labels == len(rows)
        self.settle(rows)
        for partition, position in result.positions.items():
            assert all((partition, offset) in self.settled for offset in range(position))
        self.released += 1
        self.core.update_published(self.released, result.trained_through)
        assert self.core.champion.version == self.released

    @precondition(lambda self: bool(self.learning))
    @rule(reason=st.sampled_from(["killed", "unfit", "error", "budget", "diverged"]))
    def update_fails(self, reason: str) -> None:
        """The training process fails: its rows wait again, or are skipped and settled."""
        end = self.core.update_failed(reason, "because")
        assert end.labels == len(self.learning)
        if end.skipped:
            self.settle(self.learning)
        self.learning = []

    @rule()
    def run(self) -> None:
        """A run starts when a trigger asks; a second one never starts beside it."""
        asked = self.core.run_due(self.now)
        if self.core.run is not None:
            assert asked is None
        if asked is not None:
            run = self.core.start_run(asked)
            assert run is not None
            assert not set(map(id, run.selection.train)) & set(map(id, run.selection.holdout))
            assert self.core.run_due(self.now) is None, "one run at a time"

    @precondition(lambda self: self.core.run is not None)
    @rule(good=st.booleans())
    def run_answers(self, good: bool) -> None:
        """The gate passes or refuses the candidate; a release names the champion that it replaces as its parent."""
        under_way = self.core.run
        assert under_way is not None
        result = self.core.run_finished(candidate(under_way.run.selection.holdout, good=good))
        if result.gate.passed:
            self.released += 1
            self.core.run_published(self.released, self.now, result.gate)
            assert self.core.champion.version == self.released
            if self.declared.online:  # it has learned what was read when it started, and nothing else
                self.settled = {(p, o) for p, at in under_way.considered.items() for o in range(at)}
        self.core.run_ended(1.0)
        assert self.core.run is None

    @rule(version=st.integers(0, 3))
    def operator(self, version: int) -> None:
        """An operator promotes a release."""
        fits = 0 < version <= self.released
        self.core.champion_is(Champion(version if fits else 0, fits=fits))

    @invariant()
    def positions_lie_below_what_waits(self) -> None:
        """Every example below the committed positions was learned, skipped, or considered by a run."""
        if hasattr(self, "core") and self.declared.online and self.core.refilled:
            for partition, position in self.core.positions().items():
                assert position <= max(self.ends[partition], self.committed[partition])
                unsettled = [o for o in range(position) if (partition, o) not in self.settled]
                assert not unsettled


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.generate])


def test_nothing_starts_before_the_window_is_read_again() -> None:
    """After a restart neither a run nor an update starts until reading has reached the committed positions."""
    core = core_of(pipeline(), {0: 100})
    feed(core, 60)
    assert not core.refilled
    assert core.run_due(1_000.0) is None
    assert not core.update_due(1_000.0)
    feed(core, 60, start=60)
    assert core.refilled
    assert core.update_due(1_000.0)
    assert [r.offset for r in core.start_update(1_000.0).rows] == list(range(50, 120)), (
        "fresh weights learn what is replayed"
    )


def test_a_run_that_updates_have_overtaken_still_replaces_the_newest_of_them() -> None:
    """The parent of a run's release is the newest update when no operator has moved the champion meanwhile."""
    core = core_of(pipeline())
    feed(core, 40)
    asked = core.run_due(50.0)
    assert asked is not None
    run = core.start_run(asked)
    assert run is not None
    targets = np.array([r.target for r in core.start_update(50.0).rows], np.float32)
    sharp = np.where(targets == 1, 0.9, 0.1).astype(np.float32)[:, None]
    result = core.update_learned(np.full_like(sharp, 0.5), sharp, targets)
    assert isinstance(result, UpdateResult)
    core.update_published(1, result.trained_through)
    assert core.run_finished(candidate(run.selection.holdout, good=True)).parent == 1
    core.champion_is(Champion(7))
    assert core.run_finished(candidate(run.selection.holdout, good=True)).parent == 0, "the publisher is to refuse it"


def test_a_refused_backlog_is_learned_in_smaller_chunks() -> None:
    """A chunk that the guard refuses waits again, in halves; labels are skipped only at the smallest size."""
    core = core_of(pipeline())
    feed(core, 40)
    update = core.start_update(0.0)
    targets = np.array([r.target for r in update.rows], np.float32)
    wrong = np.where(targets == 1, 0.1, 0.9).astype(np.float32)[:, None]
    end = core.update_learned(np.full_like(wrong, 0.5), wrong, targets)
    assert isinstance(end, UpdateEnd)
    assert (end.outcome, end.labels, end.skipped) == ("refused", 40, False)
    assert core.positions() == {0: 0}
    assert len(core.start_update(1.0).rows) == 20


@pytest.mark.parametrize(("reason", "skipped", "rests"), [("error", True, True), ("killed", False, False)])
def test_a_failed_update_is_tried_once_more_only_after_a_kill(reason: str, skipped: bool, rests: bool) -> None:
    """A process that was killed may have been innocent; an exception in it comes from the chunk or the module."""
    core = core_of(pipeline())
    feed(core, 40)
    core.start_update(0.0)
    first = core.update_failed(reason, "because")
    assert (first.skipped, first.rest) == (skipped, rests)
    if not skipped:
        core.start_update(1.0)
        assert core.update_failed(reason, "because").skipped


def test_weights_that_do_not_fit_are_not_asked_for_again() -> None:
    """After "unfit" the next chain starts from fresh weights and learns all examples again."""
    core = core_of(pipeline())
    core.champion_is(Champion(3, fits=True, trained_through=5.0))
    feed(core, 40)
    warm = core.start_update(0.0).start
    assert warm is not None
    assert warm.warm
    core.update_failed("unfit", "another module")
    start = core.start_update(1.0).start
    assert start is not None
    assert not start.warm
