"""Energy of a phase of work in joules, and its cost. Every figure names its source.

    rapl      counters of the processors (Linux, /sys/class/powercap); they cover everything that runs on the machine.
              Since CVE-2020-8694 only root can read them on most systems
    nvml      counters of the GPUs (Volta and later, if pynvml is installed); they cover everything that runs on them
    estimate  CPU seconds of this process times the watts of a busy core

Processors and GPUs are added: "rapl+nvml", or "estimate+nvml" where the counters of the processors cannot be read. An
estimate omits memory, disks, fans and idle power.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

POWERCAP = Path("/sys/class/powercap")
JOULES_PER_KWH = 3.6e6


class Energy(NamedTuple):
    """Joules and their source: rapl, nvml, estimate, or two of them joined by a plus."""

    joules: float
    source: str


class EnergyCounter(Protocol):
    """Counts joules. `source` names it in every figure."""

    @property
    def source(self) -> str: ...

    def joules(self) -> float:
        """Joules since the counter was made. Call it at least once an hour: a wrap may be missed otherwise."""


class EnergyMark(NamedTuple):
    """Readings at the start of a phase: CPU seconds, and joules of each counter."""

    cpu_seconds: float
    counted: tuple[float, ...]


class EnergyMeter:
    """Measures phases of work of this process; phases may overlap. `watts_per_core` >= 0 is used for estimates."""

    def __init__(
        self,
        watts_per_core: float,
        counters: Sequence[EnergyCounter] | None = None,
        cpu_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._watts, self._cpu_seconds = watts_per_core, cpu_seconds
        self._counters = available_counters() if counters is None else counters

    def mark(self) -> EnergyMark:
        """Read all counters at the start of a phase."""
        return EnergyMark(self._cpu_seconds(), tuple(counter.joules() for counter in self._counters))

    def since(self, mark: EnergyMark) -> Energy:
        """Energy since a mark."""
        parts = [
            Energy(counter.joules() - before, counter.source)
            for counter, before in zip(self._counters, mark.counted, strict=True)
        ]
        if not any(part.source == "rapl" for part in parts):
            parts.insert(0, estimate(self._cpu_seconds() - mark.cpu_seconds, self._watts))
        return Energy(sum(part.joules for part in parts), "+".join(part.source for part in parts))


def estimate(cpu_seconds: float, watts_per_core: float) -> Energy:
    """Estimate the energy of a busy core, for work that shared its machine or ran on another one."""
    return Energy(cpu_seconds * watts_per_core, "estimate")


def cost(joules: float, cpu_seconds: float, *, kwh: float, core_hour: float) -> float:
    """Cost of energy and cores at the price of a kilowatt-hour and of a core for an hour, in their currency."""
    return joules / JOULES_PER_KWH * kwh + cpu_seconds / 3600 * core_hour


def available_counters() -> list[EnergyCounter]:
    """Counters of this machine that can be read."""
    counters: list[EnergyCounter] = []
    zones = RaplCounter.zones(POWERCAP)
    if zones:
        counters.append(RaplCounter(zones))
    with suppress(Exception):  # no module, no driver, no device, or a device without a counter
        counters.append(NvmlCounter())
    return counters


class RaplCounter:
    """Sums the counters of the processor packages, and of memory, which packages do not include.

    They count microjoules and wrap at a range of their own: see "Power Capping Framework" in the Linux kernel's
    administration guide.
    """

    source = "rapl"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [_number(path) for path, _ in self._zones]
        self._total = 0

    @staticmethod
    def zones(directory: Path) -> list[Path]:
        """Zones to sum; empty if any of them cannot be read."""
        try:
            zones = sorted(directory.glob("intel-rapl:*"))
            chosen = [zone for zone in zones if zone.name.count(":") == 1 or _text(zone / "name") == "dram"]
            for zone in chosen:
                _number(zone / "energy_uj")
                _number(zone / "max_energy_range_uj")
        except (OSError, ValueError):
            return []
        return chosen

    def joules(self) -> float:
        """See `EnergyCounter`."""
        for i, (path, range_) in enumerate(self._zones):
            now = _number(path)
            self._total += (now - self._last[i]) % (range_ + 1)
            self._last[i] = now
        return self._total / 1e6


class NvmlCounter:
    """Sums the counters of all GPUs. Raises RuntimeError without a GPU, and the errors of `pynvml`."""

    source = "nvml"

    def __init__(self, pynvml: Any = None) -> None:
        pynvml = pynvml or import_module("pynvml")
        pynvml.nvmlInit()
        self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        if not self._devices:
            raise RuntimeError("there is no GPU")
        self._first = self._millijoules()

    def joules(self) -> float:
        """See `EnergyCounter`."""
        return (self._millijoules() - self._first) / 1e3

    def _millijoules(self) -> int:
        return sum(self._read(device) for device in self._devices)


def _number(path: Path) -> int:
    return int(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
