"""Policy files: what they change, and what they say when they are wrong."""

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
    """Triggers by name, with tables or their first argument; tables change single fields; the rest stays."""
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
    """`true` is the usual rhythm, `false` none; what is not named stays."""
    assert changed(BASE, {"online": True}, "x").pipeline.online == Online()
    assert changed(Policy.of(tiny.online), {"online": False, "retrain": [{"labels": 5}]}, "x").pipeline.online is None
    assert changed(BASE, {}, "x").pipeline.retrain == BASE.pipeline.retrain
    assert changed(BASE, {"name": "mine"}, "x").name == "mine"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("retrain = [{ hourly = 1 }]", "'hourly' is no trigger: there are age, below, drift"),
        ("retrain = [{ labels = { number = 5 } }]", "Labels has no number"),
        ("retrain = [{ labels = 0 }]", "at least 1"),
        ("retrain = [5]", "5 is no trigger"),
        ("training = { windw = 5 }", "Training has no windw"),
        ('gate = { metric = "squared_error" }', "cannot judge"),
        ("gat = {}", "gat: write name, online, retrain, training or gate"),
        ("training = 5", "write a table"),
        ('online = true\ntraining = { start = "transfer" }', "need online=False"),
        ("retrain = [", "is no policy"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, why: str) -> None:
    """One line that names the file, the word and what could stand there."""
    file = tmp_path / "p.toml"
    file.write_text(text)
    with pytest.raises(BadData) as raised:
        read_policy(file, BASE)
    assert str(file) in str(raised.value)
    assert why in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(BadData, match=r"none.toml"):
        read_policy(tmp_path / "none.toml", BASE)
