"""Training beside inference in words for people (pure): a table's rows, and two sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Comparison = Mapping[str, Any]
_NONE = "-"


def rows(found: Comparison) -> Iterator[tuple[str, str, str]]:
    """What is compared, of inference, of training."""
    both = found["inference"], found["training"]
    for name, tell in (
        ("purpose", lambda side: side["purpose"]),
        ("compute", _compute),
        ("latency of", lambda side: side["latency"]["of"]),
        ("p50", lambda side: duration(side["latency"]["p50_s"])),
        ("p99", lambda side: duration(side["latency"]["p99_s"])),
        ("data", lambda side: ", ".join(f"{count:,} {_words(what)}" for what, count in side["data"].items())),
        ("hardware", _hardware),
        ("energy", _energy),
        ("cost", lambda side: _costs(side["cost"])),
    ):
        first, second = map(tell, both)
        yield name, first, second
    yield "of a run, p50", _NONE, duration(found["training"]["run_latency"]["p50_s"])
    yield "energy of each", _each(both[0], "joules", "million predictions"), _each(both[1], "joules", "retraining")
    yield "cost of each", _each(both[0], "cost", "million predictions"), _each(both[1], "cost", "retraining")


def sentences(found: Comparison) -> list[str]:
    """The comparison in two lines."""
    inference, training = found["inference"], found["training"]
    cpu = {name: side["compute"].get("cpu_seconds", 0.0) for name, side in found.items()}
    published = sum(training["published"].values())
    return [
        f"inference: {inference['data']['events']:,} predictions in {cpu['inference']:.1f} CPU s, "
        f"{_energy(inference)}, {_costs(inference['cost'])}",
        f"training: {published:,} retrainings in {cpu['training']:.1f} CPU s, "
        f"{_energy(training)}, {_costs(training['cost'])}",
    ]


def duration(seconds: float | None) -> str:
    """A duration in the unit that suits it."""
    if seconds is None:
        return _NONE
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return (
        f"{seconds:.3g} s"
        if seconds < 120
        else f"{seconds / 60:,.0f} min"
        if seconds < 7_200
        else f"{seconds / 3600:,.0f} h"
    )


def _compute(side: Comparison) -> str:
    return ", ".join(
        f"{value:,.1f} {name.removesuffix('_seconds').upper()} s" for name, value in side["compute"].items()
    )


def _hardware(side: Comparison) -> str:
    def told(one: Mapping[str, str]) -> str:
        gpu = "" if one["gpu"] == "none" else f", {one['gpu']}"
        return f"{one['processor']}, {one['cores']} cores ({one['machine']}){gpu}"

    return "; ".join(map(told, side["hardware"])) or _NONE


def _energy(side: Comparison) -> str:
    sources = " + ".join(sorted(side["energy"]["sources"])) or "none"
    return f"{_amount(side['energy']['joules'])} J ({sources})"


def _costs(costs: Mapping[str, float]) -> str:
    return ", ".join(f"{_amount(cost)} {currency}" for currency, cost in costs.items()) or _NONE


def _each(side: Comparison, what: str, each: str) -> str:
    per = side["per_million_predictions" if each.startswith("million") else "per_retraining"]
    if per is None:
        return _NONE
    return f"{_amount(per['joules'])} J a {each}" if what == "joules" else f"{_costs(per['cost'])} a {each}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _words(name: str) -> str:
    return name.replace("_", " ")
