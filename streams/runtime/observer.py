"""The port of an observer: what a runner reports while it works."""

from __future__ import annotations

from tailrace.streams.log.base import Batch
from tailrace.streams.log.codec import Malformed


class Observer:
    """Observer of a runner; the base class does nothing. Durations in seconds."""

    def took(self, batch: Batch) -> None:
        """Receive the batch that a read returned, before the step processes it. The batch may be empty.

        When this is called, the step has processed all earlier batches, and their results were handed to the writer.
        They may not be committed yet.
        """

    def batch(self, read: int, written: int, seconds: float) -> None:
        """Receive the numbers of records read and written, and the duration, of a batch handed to the writer."""

    def idle(self) -> None:
        """Receive that a read returned nothing to process."""

    def committed(self, seconds: float) -> None:
        """Receive that a commit was started, and the seconds for which the loop waited for it."""

    def rebalanced(self, kind: str, partitions: int) -> None:
        """Receive the kind of a rebalance (assigned, revoked or lost), and the number of partitions that it moved."""

    def aborted(self) -> None:
        """Receive that a transaction was aborted. The loop then continues at the committed positions."""

    def set_aside(self, letter: Malformed) -> None:
        """Receive a record that became a dead letter because the step fails, or dies, on it alone."""
