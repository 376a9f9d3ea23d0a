"""Joules of a phase of work, and what they and the time cost. Every figure says where it comes from.

    rapl      the processors' own counters (Linux, /sys/class/powercap): all that ran on the machine meanwhile.
              Most systems let only root read them since CVE-2020-8694
    nvml      the GPUs' own counters (Volta and later, where pynvml can be imported): all that ran on them meanwhile
    estimate  CPU seconds of this process times the watts of a busy core

Processors and GPUs are added: "rapl+nvml", or "estimate+nvml" where the processors' counters cannot be read. An
estimate leaves memory, disks, fans and idle power out.
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
    """Joules, and where the figure comes from: rapl, nvml, estimate, or two of them with a plus."""

    joules: float
    source: str


class EnergyCounter(Protocol):
    """Counts joules. `source` is its word."""

    @property
    def source(self) -> str: ...

    def joules(self) -> float:
        """Joules since the counter was made; call it at least once in an hour, or a wrap may be missed."""


class EnergyMark(NamedTuple):
    """The state of a meter at the start of a phase."""

    cpu_seconds: float
    counted: tuple[float, ...]


class EnergyMeter:
    """Measures phases of this process's work; phases may overlap. `watts_per_core` >= 0 is for estimates."""

    def __init__(
        self,
        watts_per_core: float,
        counters: Sequence[EnergyCounter] | None = None,
        cpu_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._watts, self._cpu_seconds = watts_per_core, cpu_seconds
        self._counters = available_counters() if counters is None else counters

    def mark(self) -> EnergyMark:
        """The start of a phase."""
        return EnergyMark(self._cpu_seconds(), tuple(counter.joules() for counter in self._counters))

    def since(self, mark: EnergyMark) -> Energy:
        """The energy from a mark until now."""
        parts = [
            Energy(counter.joules() - before, counter.source)
            for counter, before in zip(self._counters, mark.counted, strict=True)
        ]
        if not any(part.source == "rapl" for part in parts):
            parts.insert(0, estimate(self._cpu_seconds() - mark.cpu_seconds, self._watts))
        return Energy(sum(part.joules for part in parts), "+".join(part.source for part in parts))


def estimate(cpu_seconds: float, watts_per_core: float) -> Energy:
    """The energy of a core that was busy for so long: for work that shared the machine, or was done elsewhere."""
    return Energy(cpu_seconds * watts_per_core, "estimate")


def cost(joules: float, cpu_seconds: float, *, kwh: float, core_hour: float) -> float:
    """What energy and cores cost, at a price of a kilowatt-hour and one of a core for an hour, in their currency."""
    return joules / JOULES_PER_KWH * kwh + cpu_seconds / 3600 * core_hour


def available_counters() -> list[EnergyCounter]:
    """The counters of this machine that can be read now."""
    counters: list[EnergyCounter] = []
    zones = Rapl.zones(POWERCAP)
    if zones:
        counters.append(Rapl(zones))
    with suppress(Exception):  # no module, no driver, no device, or one too old to count
        counters.append(Nvml())
    return counters


class Rapl:
    """Sums the counters of the processor packages (and of memory, which packages do not include).

    They count microjoules and begin again at a range of their own: see the powercap chapter of the Linux kernel's
    administration guide.
    """

    source = "rapl"

    def __init__(self, zones: Sequence[Path]) -> None:
        self._zones = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in zones]
        self._last = [_number(path) for path, _ in self._zones]
        self._total = 0

    @staticmethod
    def zones(directory: Path) -> list[Path]:
        """The zones to sum; none where one of them cannot be read."""
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


class Nvml:
    """Sums the GPUs' counters. Raises whatever `pynvml` does where there is nothing to count."""

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
