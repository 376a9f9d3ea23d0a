"""Energy and cost: counters that wrap or cannot be read, estimates, and the source of each figure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tailrace.monitoring.telemetry.energy import (
    Energy,
    EnergyMeter,
    NvmlCounter,
    RaplCounter,
    available_counters,
    cost,
    estimate,
)


def zone(directory: Path, name: str, microjoules: int, kind: str = "package-0", range_: int = 999_999_999) -> Path:
    """Write the files of a zone as the kernel does."""
    path = directory / name
    path.mkdir(exist_ok=True)
    for file, value in (("energy_uj", microjoules), ("max_energy_range_uj", range_), ("name", kind)):
        (path / file).write_text(f"{value}\n")
    return path


class ListedCounter:
    """An energy counter that returns given values one after the other."""

    def __init__(self, *values: float, source: str = "rapl") -> None:
        self._values, self.source = iter(values), source

    def joules(self) -> float:
        """The next value."""
        return next(self._values)


def test_packages_and_memory_are_summed(tmp_path: Path) -> None:
    """Cores are part of their package and are not added; memory is added."""
    zone(tmp_path, "intel-rapl:0", 0)
    zone(tmp_path, "intel-rapl:0:0", 0, "core")
    zone(tmp_path, "intel-rapl:0:1", 0, "dram")
    zone(tmp_path, "intel-rapl:1", 5_000_000, "package-1")
    counter = RaplCounter(RaplCounter.zones(tmp_path))
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", 900_000, "core")
    zone(tmp_path, "intel-rapl:0:1", 500_000, "dram")
    zone(tmp_path, "intel-rapl:1", 7_000_000, "package-1")
    assert counter.joules() == 3.5


def test_a_counter_that_wraps(tmp_path: Path) -> None:
    """A wrap of the counter neither loses nor adds energy."""
    counter = RaplCounter([zone(tmp_path, "intel-rapl:0", 9_000_000, range_=9_999_999)])
    zone(tmp_path, "intel-rapl:0", 1_000_000, range_=9_999_999)
    assert counter.joules() == 2.0
    zone(tmp_path, "intel-rapl:0", 1_500_000, range_=9_999_999)
    assert counter.joules() == 2.5


def test_counters_that_cannot_be_read_are_not_there(tmp_path: Path) -> None:
    """Without the directory, or with a file that is no number, there is no counter."""
    assert RaplCounter.zones(tmp_path / "none") == []
    (zone(tmp_path, "intel-rapl:0", 0) / "energy_uj").write_text("denied")
    assert RaplCounter.zones(tmp_path) == []


def test_gpus_are_summed() -> None:
    """The millijoules of all devices are added; without a device the counter cannot be made."""
    counted = {0: 1_000, 1: 5_000}
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=lambda i: counted[i],
    )
    counter = NvmlCounter(fake)
    counted[0], counted[1] = 3_000, 5_500
    assert counter.joules() == 2.5
    fake.nvmlDeviceGetCount = lambda: 0
    with pytest.raises(RuntimeError):
        NvmlCounter(fake)


def test_without_counters_it_is_an_estimate() -> None:
    """Without counters the energy is CPU seconds times watts, and its source is `estimate`."""
    seconds = iter([10.0, 14.0])
    meter = EnergyMeter(5.0, [], lambda: next(seconds))
    assert meter.since(meter.mark()) == Energy(20.0, "estimate")


def test_counters_win_over_estimates() -> None:
    """With counted processors nothing is estimated; GPUs are added to either."""
    counted = EnergyMeter(5.0, [ListedCounter(1, 4), ListedCounter(10, 12, source="nvml")], lambda: 0.0)
    assert counted.since(counted.mark()) == Energy(5.0, "rapl+nvml")
    seconds = iter([0.0, 2.0])
    half = EnergyMeter(5.0, [ListedCounter(10, 12, source="nvml")], lambda: next(seconds))
    assert half.since(half.mark()) == Energy(12.0, "estimate+nvml")


def test_this_machine_has_a_figure() -> None:
    """On this machine a phase has joules and the source of its counters."""
    meter = EnergyMeter(5.0)
    mark = meter.mark()
    sum(range(100_000))
    energy = meter.since(mark)
    assert energy.joules >= 0
    assert energy.source == "+".join(
        ["estimate"] * all(c.source != "rapl" for c in available_counters()) + [c.source for c in available_counters()]
    )


def test_cost_is_power_and_cores() -> None:
    """Cost is kilowatt-hours and core hours at their prices."""
    assert cost(3.6e6, 7_200, kwh=0.2, core_hour=0.05) == pytest.approx(0.3)
    assert estimate(3_600, 5.0) == Energy(18_000, "estimate")
