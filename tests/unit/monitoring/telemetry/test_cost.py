"""Cost of a role: processor seconds of its processes, its share of the machine's energy, prices."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from support.waiting import until

from tailrace.monitoring.telemetry.cost import (
    CostCollector,
    ResourcePrices,
    hardware_labels,
    machine_busy_seconds,
    tree_cpu_seconds,
)

BUSY = "import time\nwhile time.process_time() < {seconds}: pass\nprint(flush=True)\ninput()"
PARENT = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\nchild.wait()"
PRICES = ResourcePrices("EUR", kwh=0.36, core_hour=0.72, watts_per_core=4.0)


class FakeEnergyCounter:
    """An energy counter that is set by hand."""

    def __init__(self, source: str) -> None:
        self.source, self.total = source, 0.0

    def joules(self) -> float:
        """The joules that were set."""
        return self.total


class Machine:
    """A machine and a role on it, with counters that are set by hand."""

    def __init__(self, *counters: FakeEnergyCounter, busy: bool = True) -> None:
        self.cpu, self.busy, self.gpu = 0.0, 0.0, 0.0
        self.registry = CollectorRegistry()
        self.registry.register(
            CostCollector(
                "training",
                PRICES,
                gpu_seconds=lambda: self.gpu,
                counters=counters,
                cpu_seconds=lambda: self.cpu,
                busy_seconds=lambda: self.busy if busy else None,
            )
        )

    def value(self, name: str, **labels: str) -> float | None:
        """Value of one series at a scrape."""
        return self.registry.get_sample_value(f"tailrace_{name}_total", {"phase": "training", **labels})


def test_a_role_is_charged_its_share_of_the_processors_energy() -> None:
    """A role with a fifth of the busy time is charged 20 of 100 joules, however often it is scraped."""
    rapl = FakeEnergyCounter("rapl")
    machine = Machine(rapl)
    for step in range(1, 3):
        rapl.total, machine.cpu, machine.busy = 50.0 * step, 5.0 * step, 25.0 * step
        assert machine.value("energy_joules", source="rapl") == pytest.approx(10.0 * step)
    assert machine.value("energy_joules", source="estimate") is None
    assert machine.value("compute_seconds", device="cpu") == 10.0
    assert machine.value("cost", currency="EUR") == pytest.approx(20 / 3.6e6 * 0.36 + 10 / 3600 * 0.72)


def test_without_counters_energy_is_an_estimate() -> None:
    """The estimate is CPU seconds times watts, under its own label; it never falls when a child has just ended."""
    machine = Machine(busy=False)
    machine.cpu = 10.0
    assert machine.value("energy_joules", source="estimate") == 40.0
    machine.cpu = 9.0
    assert machine.value("energy_joules", source="estimate") == 40.0
    machine.cpu = 11.0
    assert machine.value("energy_joules", source="estimate") == 44.0


def test_gpus_are_charged_to_the_role_that_uses_them() -> None:
    """The energy of GPUs is charged from the first training on a GPU on."""
    nvml = FakeEnergyCounter("nvml")
    machine = Machine(nvml)
    nvml.total = 70.0
    assert machine.value("energy_joules", source="nvml") is None
    machine.gpu, nvml.total = 3.0, 100.0
    assert machine.value("energy_joules", source="nvml") == 30.0
    assert machine.value("compute_seconds", device="gpu") == 3.0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux lists processes in files")
def test_children_and_theirs_count_while_they_live_and_when_they_have_ended() -> None:
    """The seconds of a grandchild count while it runs and after it has ended."""
    seconds = 0.3
    child = BUSY.format(seconds=seconds)
    before = tree_cpu_seconds()
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PARENT.format(child=child)], **options) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        assert tree_cpu_seconds() - before >= seconds
        parent.stdin.close()
    assert tree_cpu_seconds() - before >= seconds


def test_without_a_list_of_processes_this_one_counts(tmp_path: Path) -> None:
    """Without /proc the seconds of this process and of its ended children count."""
    before = tree_cpu_seconds(tmp_path)
    started = time.process_time()
    until(lambda: time.process_time() > started + 0.05 or sum(range(10_000)) < 0)
    assert tree_cpu_seconds(tmp_path) - before >= 0.05
    assert machine_busy_seconds(tmp_path) is None


def test_the_busy_time_of_the_machine_is_read(tmp_path: Path) -> None:
    """Idle time, waiting for disks and the time of guests do not count as busy."""
    (tmp_path / "stat").write_text("cpu  100 50 200 9000 700 10 40 99 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert machine_busy_seconds(tmp_path) == pytest.approx(4.0)


def test_hardware_has_labels() -> None:
    """The labels name machine, processor and cores, and no GPU where none was used."""
    machine, processor, cores, gpu = hardware_labels(gpu=False)
    assert machine
    assert processor
    assert int(cores) >= 1
    assert gpu == "none"
