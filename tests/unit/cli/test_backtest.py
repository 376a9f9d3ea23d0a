"""`tailrace backtest`: inferred and declared pipelines, policies, the report, JSON, and usage errors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.shell import Shell

from tailrace.demo.flights import DATA

KEYS = {"data", "events", "label_delay", "policies", "baselines"}
FIGURES = {"name", "scored", "accuracy", "kappa", "auc", "log_loss", "cpu_seconds", "seconds", "joules", "retrainings"}


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """File of 600 rows: y is x > 0 in 90 % of them; the label is known a minute later, in 10 % never."""
    chance, lines = random.Random(0), ["at,x,y,known"]
    for n in range(600):
        x = chance.gauss(0.0, 1.0)
        y = int((x > 0) != (chance.random() < 0.1))
        known = "" if n % 10 == 3 else f"{1_700_000_000 + n * 10 + 60}"
        lines.append(f"{1_700_000_000 + n * 10},{x:.4f},{y},{known}")
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_declared_pipeline_is_replayed(shell: Shell, csv: Path) -> None:
    """The configured pipeline is replayed with natural label delays, and compared with a second policy."""
    policy = shell.directory / "runs.toml"
    policy.write_text("online = false\nretrain = [{ labels = 200 }]\ntraining = { min_examples = 100 }\n")
    done = shell("backtest", "--data", csv, "--policy", policy, "--score-from", "100", "--json")
    assert done.code == 0, done.error
    result = done.data
    assert set(result) >= KEYS
    assert (result["events"], result["labels"], result["label_delay"]) == (600, 540, "natural")
    own, runs = result["policies"]
    assert set(own) >= FIGURES
    assert (own["name"], runs["name"]) == ("declared", "runs")
    assert own["scored"] == runs["scored"] == 450
    assert own["accuracy"] > 0.8  # at most 0.9 is possible; the first of the 450 events come before any update
    assert own["updates"] > 5
    assert own["retrainings"] == []
    assert {"at", "reason", "seconds", "examples", "gate"} <= set(runs["retrainings"][0])
    assert result["baselines"] == []


def test_a_pipeline_is_inferred_and_shown(shell: Shell, csv: Path) -> None:
    """Without a pipeline argument the declaration is inferred and printed to stderr, the table to stdout, and equal
    commands give equal figures."""
    command: list[str | Path] = [
        "backtest",
        "--data",
        csv,
        "--label",
        "y",
        "--time",
        "at",
        "--drop",
        "known",
        "--label-delay",
        "30",
    ]
    done = shell(*command, "--report", "out")
    assert done.code == 0, done.error
    assert "class Row(Event):" in done.error
    assert "600 events, 600 labels (delay 30)" in done.out
    assert "default" in done.out
    assert "training was charged with 50,000 rows/s" in done.out
    assert "<!doctype html>" in (shell.directory / "out" / "backtest.html").read_text().lower()
    one, two = (shell(*command, "--json", "--seed", "3").data["policies"][0] for _ in range(2))
    assert {key: one[key] for key in ("accuracy", "auc", "log_loss")} == {
        key: two[key] for key in ("accuracy", "auc", "log_loss")
    }


@pytest.mark.long
def test_baselines_are_measured_beside_the_default(shell: Shell) -> None:
    """Each baseline learns from recorded flights with their label delays, and is measured."""
    columns = ("--label", "label", "--time", "event_time", "--label-time", "label_time")
    done = shell("backtest", "--data", DATA, *columns, "--limit", "1500", "--baselines", "--json")
    assert done.code == 0, done.error
    result = done.data
    names = [entry["name"] for entry in result["baselines"]]
    assert names == ["no change", "frozen", "logistic", "adaptive tree", "forest"]
    assert all(entry["scored"] == result["policies"][0]["scored"] > 1_200 for entry in result["baselines"])
    assert all(set(entry) >= FIGURES for entry in result["baselines"])
    assert all(entry["cpu_seconds"] > 0 for entry in result["baselines"])


def test_duration_delays_and_limits(shell: Shell, csv: Path) -> None:
    """--label-delay 5m is a delay in event time, and --limit replays only the first events."""
    done = shell("backtest", "--data", csv, "--label-delay", "5m", "--limit", "200", "--rate", "1000", "--json")
    assert done.code == 0, done.error
    assert done.data["training_rate"] == 1000
    assert (done.data["events"], done.data["labels"], done.data["label_delay"]) == (200, 200, "5m")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--data is missing"),
        (("--data", "none.csv"), 2, "none.csv"),
        (("--data", "rows.csv", "--label-delay", "soon"), 2, "a label delay is"),
        (("--data", "rows.csv", "--label", "z", "--time", "at"), 2, "'z'"),
        (("--data", "rows.csv", "--policy", "none.toml"), 2, "none.toml"),
        (("--data", "sqlite:///none.db"), 2, "none.db"),
        (("--data", "sqlite:///none.db", "--label", "y"), 2, "must be a file"),
    ],
)
def test_a_usage_error_is_one_line(
    shell: Shell, csv: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """A usage error is one line on stderr with its fix and exit code; stdout is empty."""
    done = shell("backtest", *arguments)
    assert done.code == code, done.error
    assert message in done.error
    assert len(done.error.strip().splitlines()) == 1
    assert done.out == ""
