"""Energy and cost: counters that wrap or cannot be read, estimates, and that each figure says what it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tailrace.monitoring.telemetry.energy import Energy, EnergyMeter, Nvml, Rapl, available_counters, cost, estimate


def zone(directory: Path, name: str, microjoules: int, kind: str = "package-0", range_: int = 999_999_999) -> Path:
    """A zone as the kernel shows it."""
    path = directory / name
    path.mkdir(exist_ok=True)
    for file, value in (("energy_uj", microjoules), ("max_energy_range_uj", range_), ("name", kind)):
        (path / file).write_text(f"{value}\n")
    return path


class Steps:
    """A clock or counter that gives what it is told to, one after the other."""

    def __init__(self, *values: float, source: str = "rapl") -> None:
        self._values, self.source = iter(values), source

    def joules(self) -> float:
        return next(self._values)


def test_packages_and_memory_are_summed(tmp_path: Path) -> None:
    """Cores are part of their package, memory is not."""
    zone(tmp_path, "intel-rapl:0", 0)
    zone(tmp_path, "intel-rapl:0:0", 0, "core")
    zone(tmp_path, "intel-rapl:0:1", 0, "dram")
    zone(tmp_path, "intel-rapl:1", 5_000_000, "package-1")
    counter = Rapl(Rapl.zones(tmp_path))
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", 900_000, "core")
    zone(tmp_path, "intel-rapl:0:1", 500_000, "dram")
    zone(tmp_path, "intel-rapl:1", 7_000_000, "package-1")
    assert counter.joules() == 3.5


def test_a_counter_that_begins_again(tmp_path: Path) -> None:
    """A wrap is no energy lost, and none won."""
    counter = Rapl([zone(tmp_path, "intel-rapl:0", 9_000_000, range_=9_999_999)])
    zone(tmp_path, "intel-rapl:0", 1_000_000, range_=9_999_999)
    assert counter.joules() == 2.0
    zone(tmp_path, "intel-rapl:0", 1_500_000, range_=9_999_999)
    assert counter.joules() == 2.5


def test_counters_that_cannot_be_read_are_not_there(tmp_path: Path) -> None:
    """Without the directory, or with a file that says nothing, there is no counter."""
    assert Rapl.zones(tmp_path / "none") == []
    (zone(tmp_path, "intel-rapl:0", 0) / "energy_uj").write_text("denied")
    assert Rapl.zones(tmp_path) == []


def test_gpus_are_summed() -> None:
    """NVML counts millijoules for each device."""
    counted = {0: 1_000, 1: 5_000}
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=lambda i: counted[i],
    )
    counter = Nvml(fake)
    counted[0], counted[1] = 3_000, 5_500
    assert counter.joules() == 2.5
    fake.nvmlDeviceGetCount = lambda: 0
    with pytest.raises(RuntimeError):
        Nvml(fake)


def test_without_counters_it_is_an_estimate() -> None:
    """CPU seconds times watts, and the figure says so."""
    seconds = iter([10.0, 14.0])
    meter = EnergyMeter(5.0, [], lambda: next(seconds))
    assert meter.since(meter.mark()) == Energy(20.0, "estimate")


def test_counters_win_over_estimates() -> None:
    """Where processors are counted nothing is estimated; GPUs come on top of either."""
    counted = EnergyMeter(5.0, [Steps(1, 4), Steps(10, 12, source="nvml")], lambda: 0.0)
    assert counted.since(counted.mark()) == Energy(5.0, "rapl+nvml")
    seconds = iter([0.0, 2.0])
    half = EnergyMeter(5.0, [Steps(10, 12, source="nvml")], lambda: next(seconds))
    assert half.since(half.mark()) == Energy(12.0, "estimate+nvml")


def test_this_machine_gives_some_figure() -> None:
    """Whatever can be read here, a phase has joules and a source."""
    meter = EnergyMeter(5.0)
    mark = meter.mark()
    sum(range(100_000))
    energy = meter.since(mark)
    assert energy.joules >= 0
    assert energy.source == "+".join(
        ["estimate"] * all(c.source != "rapl" for c in available_counters()) + [c.source for c in available_counters()]
    )


def test_cost_is_power_and_cores() -> None:
    """A kilowatt-hour and two core hours."""
    assert cost(3.6e6, 7_200, kwh=0.2, core_hour=0.05) == pytest.approx(0.3)
    assert estimate(3_600, 5.0) == Energy(18_000, "estimate")
