"""The embedded log with commits whose outcome stays unknown to the writer, as after a lost answer."""

from __future__ import annotations

from typing import Any, Literal

from tailrace.streams.log.base import Aborted, Delivery, Positions, Reader
from tailrace.streams.log.sqlite.log import SqliteLog


class LossyLog(SqliteLog):
    """`fate` of the next exactly-once commit, which raises Aborted in either case; None: it succeeds normally."""

    fate: Literal["happened", "did not happen"] | None = None

    def writer(self, name: str = "", delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Any:
        """See `log.base.Log`."""
        real = super().writer(name, delivery)
        return real if delivery is Delivery.AT_LEAST_ONCE else _Writer(real, self)


class _Writer:
    def __init__(self, real: Any, log: LossyLog) -> None:
        self._real, self._log = real, log

    def commit(self, positions: Positions | None = None, reader: Reader | None = None) -> None:
        fate, self._log.fate = self._log.fate, None
        if fate != "did not happen":
            self._real.commit(positions, reader)
            self._real.flush()
        if fate is not None:
            raise Aborted("nobody answered")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
