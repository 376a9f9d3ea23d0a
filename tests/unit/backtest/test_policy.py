"""Policy files: the settings that they change, and the messages about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import retrain_pipeline as tiny

from tailrace.backtest.policy import Policy, changed, read_policy
from tailrace.declaration.online import Online
from tailrace.declaration.triggers import Age, Drift, Labels, Schedule
from tailrace.errors import BadData

BASE = Policy.of(tiny.pipeline)


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    """Triggers are named and take a table or their first argument; tables change single fields and keep the others."""
    file = tmp_path / "hourly.toml"
    file.write_text(
        """
        online = { labels = 20 }
        retrain = [{ schedule = "0 * * * *" }, { labels = 500 }, { drift = { effect = 0.2 } }, { age = "6h" }]
        training = { window = 9000, start = "scratch" }
        gate = { confidence = 0.9 }
        """
    )
    policy = read_policy(file, BASE)
    assert policy.name == "hourly"
    assert policy.pipeline.online == Online(labels=20)
    assert policy.pipeline.retrain == (Schedule("0 * * * *"), Labels(500), Drift(effect=0.2), Age("6h"))
    assert (policy.pipeline.training.window, policy.pipeline.training.start) == (9000, "scratch")
    assert policy.pipeline.training.epochs == BASE.pipeline.training.epochs
    assert policy.pipeline.gate.confidence == 0.9
    assert policy.settings()["online"] == "labels=20"


def test_online_can_be_switched_on_and_off() -> None:
    """`online = true` means the default settings and `false` none; keys that are absent change nothing."""
    assert changed(BASE, {"online": True}, "x").pipeline.online == Online()
    assert changed(Policy.of(tiny.online), {"online": False, "retrain": [{"labels": 5}]}, "x").pipeline.online is None
    assert changed(BASE, {}, "x").pipeline.retrain == BASE.pipeline.retrain
    assert changed(BASE, {"name": "mine"}, "x").name == "mine"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("retrain = [{ hourly = 1 }]", "'hourly' is not a trigger: write one of age, below, drift"),
        ("retrain = [{ labels = { number = 5 } }]", "Labels has no number"),
        ("retrain = [{ labels = 0 }]", "at least 1"),
        ("retrain = [5]", "5 is not a trigger"),
        ("training = { windw = 5 }", "Training has no windw"),
        ('gate = { metric = "squared_error" }', "cannot judge"),
        ("gat = {}", "unknown key gat: write name, online, retrain, training or gate"),
        ("training = 5", "write a table"),
        ('online = true\ntraining = { start = "transfer" }', "need online=False"),
        ("retrain = [", "is not a valid policy"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, why: str) -> None:
    """The message names the file, the wrong key or value, and valid ones."""
    file = tmp_path / "p.toml"
    file.write_text(text)
    with pytest.raises(BadData) as raised:
        read_policy(file, BASE)
    assert str(file) in str(raised.value)
    assert why in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    """The message names the missing file."""
    with pytest.raises(BadData, match=r"none.toml"):
        read_policy(tmp_path / "none.toml", BASE)
