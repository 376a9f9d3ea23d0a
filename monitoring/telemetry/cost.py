"""Cost of a role since its start: processor and GPU seconds, joules by source, currency; measured at each scrape.

The processor time of a role is its own, that of its children that have ended, and that of its living descendants.

The energy counters of the processors (rapl) cover the whole machine. A role is charged the share that it had of the
machine's busy time meanwhile. So the figures of several roles on one machine add up to no more than was used. (Kepler
does the same: Amaral et al., "Kepler: a framework to calculate the energy consumption of containerized applications",
2023.) The counters of the GPUs (nvml) are charged to training once it has used a GPU.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tailrace.monitoring.telemetry.energy import EnergyCounter, available_counters, cost, estimate
from tailrace.monitoring.telemetry.metrics import COMPUTE_SECONDS, COST, ENERGY_JOULES, HARDWARE_INFO

Phase: TypeAlias = Literal["inference", "training"]
PROC = Path("/proc")


class ResourcePrices(NamedTuple):
    """Prices of a kilowatt-hour and of a core for an hour, in `currency`; watts of a busy core, for estimates."""

    currency: str = "EUR"
    kwh: float = 0.0
    core_hour: float = 0.0
    watts_per_core: float = 5.0


class CostCollector(Collector):
    """Collects the compute, energy and cost of one role.

    `cpu_seconds` and `busy_seconds` are processor seconds of the role and of the machine; both only grow, and the
    latter is None on a machine that does not count them. `gpu_seconds` are seconds of training on GPUs.
    """

    def __init__(
        self,
        phase: Phase,
        prices: ResourcePrices,
        *,
        gpu_seconds: Callable[[], float] = lambda: 0.0,
        counters: Sequence[EnergyCounter] | None = None,
        cpu_seconds: Callable[[], float] | None = None,
        busy_seconds: Callable[[], float | None] | None = None,
    ) -> None:
        self._phase, self._prices, self._gpu_seconds = phase, prices, gpu_seconds
        self._counters = available_counters() if counters is None else counters
        self._cpu_seconds = cpu_seconds or tree_cpu_seconds
        self._busy_seconds = busy_seconds or machine_busy_seconds
        self._lock = threading.Lock()
        self._cpu = 0.0
        self._busy = self._busy_seconds()
        self._counted = [counter.joules() for counter in self._counters]
        self._joules: dict[str, float] = {}  # by source
        self._measure()  # includes the start of the process

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Families without values, so that registering measures nothing."""
        yield from (COMPUTE_SECONDS.counter(), ENERGY_JOULES.counter(), COST.counter(), HARDWARE_INFO.gauge())

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Measure and yield all families; the registry calls this at each scrape."""
        with self._lock:
            self._measure()
            cpu, gpu, joules = self._cpu, self._gpu_seconds(), dict(self._joules)
        phase, prices = self._phase, self._prices
        compute, energy, total_cost = COMPUTE_SECONDS.counter(), ENERGY_JOULES.counter(), COST.counter()
        compute.add_metric([phase, "cpu"], cpu)
        compute.add_metric([phase, "gpu"], gpu)
        for source, value in joules.items():
            energy.add_metric([phase, source], value)
        total = cost(sum(joules.values()), cpu, kwh=prices.kwh, core_hour=prices.core_hour)
        total_cost.add_metric([phase, prices.currency], total)
        hardware = HARDWARE_INFO.gauge()
        hardware.add_metric([phase, *hardware_labels(gpu > 0)], 1)
        yield from (compute, energy, total_cost, hardware)

    def _measure(self) -> None:
        """Charge the compute and energy since the last measurement."""
        cpu = max(self._cpu, self._cpu_seconds())  # a child that has just ended may be missed for a moment
        busy = self._busy_seconds()
        used, self._cpu = cpu - self._cpu, cpu
        share = 1.0
        if busy is not None and self._busy is not None and busy > self._busy:
            share = min(1.0, used / (busy - self._busy))
        self._busy = busy
        for n, counter in enumerate(self._counters):
            joules = counter.joules()
            more, self._counted[n] = joules - self._counted[n], joules
            if counter.source == "rapl":
                self._charge("rapl", more * share)
            elif self._gpu_seconds() > 0:
                self._charge(counter.source, more)
        if not any(counter.source == "rapl" for counter in self._counters):
            self._charge("estimate", estimate(used, self._prices.watts_per_core).joules)

    def _charge(self, source: str, joules: float) -> None:
        self._joules[source] = self._joules.get(source, 0.0) + joules


def tree_cpu_seconds(proc: Path = PROC) -> float:
    """Processor seconds of this process and its descendants.

    On Linux (`proc` lists the processes) living descendants count. Elsewhere a child counts once it has ended.
    """
    total = time.process_time()
    with suppress(ImportError):  # Windows
        import resource

        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        total += ended.ru_utime + ended.ru_stime
    waiting = _children(proc / str(os.getpid()))
    while waiting:
        process = proc / waiting.pop()
        with suppress(OSError, ValueError):  # it has just ended
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own, and of its ended children
            waiting += _children(process)
    return total


def _children(process: Path) -> list[str]:
    """Process ids of the children of all threads of a process."""
    children: list[str] = []
    for path in process.glob("task/*/children"):
        with suppress(OSError):
            children += path.read_text().split()
    return children


def machine_busy_seconds(proc: Path = PROC) -> float | None:
    """Seconds that the cores of this machine have been busy since it started; None where `proc` does not count them."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, (proc / "stat").read_text().split()[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def hardware_labels(gpu: bool) -> list[str]:
    """Machine, processor, number of usable cores, and GPUs ("none" unless `gpu`)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [platform.machine(), _processor(), str(cores), _gpus() if gpu else "none"]


@cache
def _processor() -> str:
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@cache
def _gpus() -> str:
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return ", ".join(str(pynvml.nvmlDeviceGetName(handle)) for handle in handles)
    except Exception:  # no module, or no driver
        return "cuda"
