"""The training loop and the training process: learning, repeatability and failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch
from support import retrain_pipeline as tiny
from support.jobs import job, rows
from support.waiting import PATIENCE_S
from torch import Tensor

from tailrace.declaration.facts import Due, Facts
from tailrace.declaration.gate import Metric
from tailrace.declaration.task import Kind, Task
from tailrace.declaration.training import Training
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.losses import losses
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import load_state
from tailrace.retrain.control.champion import Champion
from tailrace.retrain.control.promotion_gate import GateResult
from tailrace.retrain.control.run import Run, judge
from tailrace.retrain.selection.buffer import Row, Selection
from tailrace.retrain.training.batches import ages
from tailrace.retrain.training.dataset import GOLDEN_ROWS, golden
from tailrace.retrain.training.loop import Diverged, score, train
from tailrace.retrain.worker.client import Trainer, TrainingFailed
from tailrace.retrain.worker.protocol import Candidate, Progress


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Trainer]:
    monkeypatch.setenv("MOOD", request.param)
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:stubborn")
    yield one
    one.close()


def loss_of(candidate: Candidate) -> float:
    truth = np.array(job().targets[300:], np.float32)
    return float(
        losses("log_loss", Kind.BINARY, np.frombuffer(candidate.scores, np.float32).reshape(-1, 1), truth).mean()
    )


def test_a_cold_run_learns(trainer: Trainer) -> None:
    """The training process is clearly better than even odds, reports its progress and fills the golden batch."""
    progress: list[Progress] = []
    candidate = trainer.train(job(), progress.append)
    assert loss_of(candidate) < 0.5
    assert not candidate.warm
    assert candidate.champion_scores is None
    assert [p.step for p in progress] == [step for step, _ in candidate.losses]
    assert candidate.steps == 20 * 10 == progress[-1].step
    assert len(candidate.golden.scores) == 16
    module = ModelSpec.of(tiny.pipeline).build()
    module.load_state_dict(load_state(candidate.state))
    assert score(module, candidate.golden.inputs(), tiny.pipeline.task).tolist() == candidate.golden.scores


def test_the_same_rows_plan_and_seed_give_the_same_bytes(trainer: Trainer) -> None:
    """On the CPU a run repeats bit for bit, cold and warm, and another seed gives another module."""
    first = trainer.train(job())
    assert trainer.train(job()).state == first.state
    assert trainer.train(job(seed=2)).state != first.state
    warm = job(champion=first.state, fresh=100)
    assert trainer.train(warm).state == trainer.train(warm).state


def test_a_warm_run_starts_from_the_champion(trainer: Trainer) -> None:
    """A warm run takes only fresh and replayed rows, and both modules are scored on the same holdout."""
    champion = trainer.train(job())
    candidate = trainer.train(job(champion=champion.state, fresh=64))
    assert candidate.warm
    assert candidate.steps == 2 * (1 + tiny.PLAN.replay)
    assert candidate.champion_scores == champion.scores
    assert loss_of(candidate) < 0.5


def test_a_champion_of_another_network_makes_the_run_cold(trainer: Trainer) -> None:
    """A run starts from fresh weights if the champion's do not fit the declared network."""
    other = Trainer(tiny.LOADER, "support.retrain_pipeline:stubborn")
    try:
        candidate = trainer.train(job(champion=other.train(job()).state))
    finally:
        other.close()
    assert not candidate.warm
    assert candidate.champion_scores is None


@pytest.mark.parametrize(
    ("stubborn", "reason", "detail"),
    [
        ("raise", "error", "RuntimeError: this model is in a bad mood"),
        ("memory", "out_of_memory", "MemoryError: too much"),
        ("diverge", "diverged", "learning_rate"),
    ],
    indirect=["stubborn"],
)
def test_what_goes_wrong_has_a_reason(
    stubborn: Trainer, reason: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the process has a reason, and the next run succeeds in a new process."""
    with pytest.raises(TrainingFailed, match=detail) as failed:
        stubborn.train(job())
    assert failed.value.reason == reason
    monkeypatch.setenv("MOOD", "fine")
    assert stubborn.train(job()).steps == 200


@pytest.mark.parametrize("stubborn", ["slow"], indirect=True)
def test_a_run_over_budget_is_killed(stubborn: Trainer) -> None:
    """A run that exceeds its budget is ended."""
    with pytest.raises(TrainingFailed, match="budget_s") as failed:
        stubborn.train(job(Training(min_examples=1, budget_s=0.5)))
    assert failed.value.reason == "over_budget"


@pytest.mark.parametrize("stubborn", ["slow"], indirect=True)
def test_a_killed_process_is_told(stubborn: Trainer) -> None:
    """A process that is killed gives a failure that names the signal."""
    stubborn.start()
    pid = stubborn.pid
    assert pid is not None
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(TrainingFailed, match="signal 9") as failed:
        stubborn.train(job())
    assert failed.value.reason == "killed"


def test_a_pipeline_that_cannot_be_loaded_is_told() -> None:
    """An error of the loader reaches the retrainer."""
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:absent")
    with pytest.raises(TrainingFailed, match="absent"):
        one.train(job())
    one.close()


def test_the_process_ends_with_its_parent() -> None:
    """The training process ends by itself when the retrainer is killed."""
    code = (
        "import time; from tailrace.retrain.worker.client import Trainer\n"
        f"t = Trainer({tiny.LOADER!r}, 'support.retrain_pipeline:pipeline'); t.start()\n"
        "print(t.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + PATIENCE_S
    while _alive(child):
        assert time.monotonic() < deadline, "the training process outlives its parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    """Training stops near the step at which the loss is no longer finite."""
    inputs = Inputs(np.full((64, 1), 1e30, np.float32), np.zeros((64, 0), np.int64))
    targets = np.zeros(64, np.float32)
    module = tiny.Stubborn()
    with torch.no_grad():
        module.layer.weight.fill_(torch.inf)
    with pytest.raises(Diverged, match="lower Training"):
        train(module, inputs, targets, Training(), Task(Kind.BINARY), fresh=None, seed=0, report=lambda *_: None)


@pytest.mark.parametrize(
    ("kind", "classes"), [("multiclass", ("a", "b", "c")), ("multilabel", ("a", "b")), ("regression", ())]
)
def test_other_tasks_learn_too(kind: str, classes: tuple[str, ...]) -> None:
    """Multi-class, multi-label and regression tasks, also with large values, are learned by the same loop."""
    random = np.random.default_rng(5)
    x = random.normal(size=(900, 1)).astype(np.float32)
    task = Task(Kind(kind), classes)
    targets = {
        "multiclass": np.digitize(x[:, 0], [-0.5, 0.5]),
        "multilabel": np.stack((x[:, 0] > 0, np.abs(x[:, 0]) > 0.5), 1),
        "regression": 1e5 + 2e4 * x[:, 0],
    }[kind].astype(np.float32)
    inputs = Inputs(np.hstack((x, x)), np.zeros((900, 1), np.int64))
    module = ModelSpec(ModelSpec.of(tiny.pipeline).features, task).build()
    plan = Training(epochs=12, learning_rate=5e-3)
    train(module, inputs, targets, plan, task, fresh=None, seed=0, report=lambda *_: None)
    metric: Metric = "squared_error" if kind == "regression" else "accuracy"
    loss = losses(metric, task.kind, score(module, inputs, task), targets).mean()
    assert loss < (0.1 * targets.var() if kind == "regression" else 0.15)


class OfType(torch.nn.Module):
    """A module that computes in a given dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return numbers[:, :1].to(self.weight.dtype) * self.weight


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 20_000])
def test_scores_are_float32_whatever_a_module_computes_in(dtype: torch.dtype, count: int) -> None:
    """Scores are float32, one per row, for every dtype of the module and every number of rows."""
    inputs = Inputs(np.zeros((count, 2), np.float32), np.zeros((count, 0), np.int64))
    scores = score(OfType(dtype), inputs, tiny.pipeline.task)
    assert np.frombuffer(scores.tobytes(), np.float32).tolist() == [0.5] * count


def test_scores_that_are_not_one_a_row_are_not_judged(trainer: Trainer) -> None:
    """A candidate whose scores do not fit its holdout is an error that gives the expected number."""
    made = rows(400)
    selection = Selection(made[:300], 300, made[300:], {})
    run = Run(Due("labels", "by hand"), Facts(0.0, 0.0, 0), Champion(0), selection, seed=1)
    candidate = trainer.train(job())
    assert judge(run, candidate, tiny.pipeline).examples == 100
    with pytest.raises(ValueError, match="gave 200 scores for 100 rows of 1"):
        judge(run, msgspec.structs.replace(candidate, scores=candidate.scores * 2), tiny.pipeline)


def test_scores_of_other_classes_are_not_compared(trainer: Trainer) -> None:
    """Examples with scores of another width do not count for the served champion."""
    made = rows(400)
    other = [msgspec.structs.replace(row, scores=[0.2, 0.3, 0.5]) for row in made[300:340]]
    candidate = trainer.train(job())

    def judged(version: int, holdout: list[Row]) -> GateResult:
        run = Run(
            Due("labels", "by hand"),
            Facts(0.0, 0.0, 0),
            Champion(version),
            Selection(made[:300], 300, holdout, {}),
            seed=1,
        )
        return judge(run, candidate, tiny.pipeline)

    mixed = judged(1, other + made[340:])
    assert (mixed.examples, mixed.champion, mixed.passed) == (60, pytest.approx(np.log(2)), True)
    none = judged(1, [msgspec.structs.replace(row, scores=[0.2, 0.3, 0.5]) for row in made[300:]])
    assert (none.examples, none.passed) == (0, False)
    assert "only 0 examples to judge by" in none.reason


@pytest.mark.parametrize(("columns", "expected"), [(2, 16), (1_000, 8), (4_096, 2), (40_000, 1)])
def test_a_golden_batch_is_no_larger_than_its_manifest_may_be(columns: int, expected: int) -> None:
    """A golden batch of wider rows has fewer of them, but at least one."""
    numbers = np.random.default_rng(1).normal(size=(20, columns)).astype(np.float32)
    inputs = Inputs(numbers, np.zeros((20, 0), np.int64)).take(slice(-GOLDEN_ROWS, None))
    made = golden(inputs, score(OfType(torch.float32), inputs, tiny.pipeline.task))
    assert made.inputs().numbers.tolist() == numbers[-expected:].tolist()
    assert len(made.scores) == expected
    assert expected == 1 or len(msgspec.json.encode(made)) <= 200_000


def test_fresh_rows_of_nothing_train_nothing() -> None:
    """A warm run without fresh rows leaves the module as it was."""
    module = ModelSpec.of(tiny.pipeline).build()
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    inputs = Inputs(np.zeros((10, 2), np.float32), np.zeros((10, 1), np.int64))
    result = train(
        module,
        inputs,
        np.zeros(10, np.float32),
        Training(),
        tiny.pipeline.task,
        fresh=0,
        seed=0,
        report=lambda *_: None,
    )
    assert result.steps == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in module.named_parameters())


@pytest.mark.parametrize(("half_life", "near"), [(10_000.0, 0.516), (float("inf"), 0.2)])
def test_replay_prefers_the_new(half_life: float, near: float) -> None:
    """Replayed rows lie in the window, and the share within one half-life of 10,000 is as declared."""
    drawn = ages(20_000, 50_000, torch.tensor([[half_life]], dtype=torch.float64), torch.Generator().manual_seed(0))[0]
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 50_000
    assert float((drawn < 10_000).double().mean()) == pytest.approx(near, abs=0.015)


def test_a_closed_trainer_starts_nothing() -> None:
    """A run that begins after the trainer was closed fails and starts no process."""
    one = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    one.close()
    with pytest.raises(TrainingFailed, match="closed"):
        one.train(job())
    assert one.pid is None
