"""The comparison of training and inference: figures from given samples, and their text."""

from __future__ import annotations

import pytest
from support.shell import Shell

from tailrace.monitoring.telemetry.compare import NoMetrics, compare_samples, comparison
from tailrace.monitoring.telemetry.compare_text import duration, rows, sentences
from tailrace.monitoring.telemetry.scrape import MetricSample, MetricSamples


def sample(name: str, value: float, **labels: str) -> MetricSample:
    """A sample of one of our metrics."""
    return MetricSample(f"tailrace_{name}", labels, value)


def buckets(name: str, **counts: float) -> list[MetricSample]:
    """Buckets of a histogram by cumulative counts: le_1=3, le_2=10 and so on, `le_inf` for all."""
    bounds = {"le_inf": "+Inf"} | {word: word.removeprefix("le_") for word in counts if word != "le_inf"}
    return [sample(f"{name}_bucket", count, le=bounds[word]) for word, count in counts.items()]


FOUND = compare_samples(
    MetricSamples(
        [
            sample("events_total", 500_000, outcome="predicted"),
            sample("events_total", 7, outcome="dead_letter"),
            sample("compute_seconds_total", 20, phase="inference", device="cpu"),
            sample("compute_seconds_total", 30, phase="training", device="cpu"),
            sample("compute_seconds_total", 40, phase="training", device="cpu"),  # of another role
            sample("energy_joules_total", 90, phase="inference", source="rapl"),
            sample("energy_joules_total", 300, phase="training", source="estimate"),
            sample("energy_joules_total", 500, phase="training", source="nvml"),
            sample("cost_total", 0.02, phase="inference", currency="EUR"),
            sample("retrain_runs_total", 3, trigger="labels", outcome="published"),
            sample("retrain_runs_total", 9, trigger="labels", outcome="refused"),
            sample("updates_total", 5, outcome="published"),
            sample("hardware_info", 1, phase="training", machine="x86_64", processor="P", cores="4", gpu="G"),
            *buckets("prediction_seconds", le_1=50, le_2=100, le_inf=100),
            *buckets("update_seconds", le_1=0, le_2=0, le_inf=0),
        ]
    )
)


def test_figures_are_sums_of_all_roles() -> None:
    """Each side adds up its roles; the cost per million predictions and per retraining follows from the sums."""
    inference, training = FOUND["inference"], FOUND["training"]
    assert inference["data"] == {"events": 500_000, "dead_letters": 7}
    assert inference["latency"] == {"of": inference["latency"]["of"], "p50_s": 1.0, "p99_s": pytest.approx(1.98)}
    assert training["latency"]["p50_s"] is None
    assert training["compute"] == {"cpu_seconds": 70}
    assert training["energy"] == {"joules": 800, "sources": {"estimate": 300, "nvml": 500}}
    assert inference["per_million_predictions"] == {"cpu_seconds": 40, "joules": 180, "cost": {"EUR": 0.04}}
    assert training["per_retraining"]["joules"] == 100
    assert training["published"] == {"updates": 5, "runs": 3}


def test_a_quantile_beyond_the_last_bound_is_at_least_that() -> None:
    """A quantile beyond the last finite bound is that bound; an empty histogram has no quantile."""
    samples = MetricSamples(buckets("waits", le_1=1, le_inf=100))
    assert samples.quantile(0.99, "tailrace_waits") == 1.0
    assert samples.quantile(0.005, "tailrace_waits") == pytest.approx(0.5)
    assert samples.quantile(0.5, "tailrace_nothing") is None


def test_the_comparison_as_text() -> None:
    """The rows of the table and the two sentences, also for a pipeline that has done nothing yet."""
    text = {name: (first, second) for name, first, second in rows(FOUND)}
    assert text["energy"] == ("90 J (rapl)", "800 J (estimate + nvml)")
    assert text["energy of each"] == ("180 J per million predictions", "100 J per retraining")
    assert text["hardware"] == ("-", "P, 4 cores (x86_64), G")
    assert sentences(FOUND)[0] == "inference: 500,000 predictions in 20.0 CPU s, 90 J (rapl), 0.02 EUR"
    assert sentences(FOUND)[1] == "training: 8 retrainings in 70.0 CPU s, 800 J (estimate + nvml), -"
    empty = {name: first for name, first, _ in rows(compare_samples(MetricSamples([])))}
    assert empty["energy of each"] == empty["p50"] == "-"


@pytest.mark.parametrize(("seconds", "words"), [(0.0012, "1.2 ms"), (1.5, "1.5 s"), (600, "10 min"), (7_300, "2 h")])
def test_durations_have_fitting_units(seconds: float, words: str) -> None:
    """Durations are in milliseconds, seconds, minutes or hours."""
    assert duration(seconds) == words


def test_a_role_that_does_not_answer_is_named(shell: Shell) -> None:
    """The error names the address, with exit code 4; without a known address it names --url, with exit code 2."""
    with pytest.raises(NoMetrics, match=r"127\.0\.0\.1:9/metrics"):
        comparison(["http://127.0.0.1:9/metrics"])
    done = shell("compare", "--url", "http://127.0.0.1:9/metrics")
    assert (done.code, done.out) == (4, "")
    (shell.directory / "tailrace.toml").write_text("[monitoring]\nport = 0\n")
    done = shell("compare")
    assert done.code == 2
    assert "--url" in done.error
