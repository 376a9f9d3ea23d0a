"""Drift of the live loss (deterministic): a rise of its mean, beyond chance and large enough to matter.

The test is that of ADWIN (Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", 2007): look
for a cut of the window whose newer part has another mean than its older part, beyond a bound that chance hardly
passes. It differs in four ways, each against false alarms:

- Only a rise is drift. A fall makes the window forget the losses before it, so that a model that is still learning
  sets a stricter reference.
- A rise must be at least `effect` standard deviations of the loss, so that many labels do not make a small rise
  significant.
- The variance is the larger of that of single losses and that of the means of blocks, since neighbouring losses are
  alike where traffic has rush hours.
- Losses are cut off at 4 standard deviations above the mean of the first 256 of a window, so that one certain mistake
  does not decide alone. The bound is Bernstein's, which holds for skewed losses, such as those of rare classes.

Results depend on the order of the losses, never on their batches. Cost: about 1 us per label.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec
import numpy as np

from tailrace.declaration.facts import Change
from tailrace.retrain.control.drift_level import Level, Losses

BLOCK = 32  # losses that are checked together
CALIBRATION = 256  # losses that measure what is extreme
EXTREME = 4.0  # standard deviations above the mean
LEAST_OLD, LEAST_NEW = 320, 96  # labels on either side of a cut
MOST = 256  # blocks held; beyond that, the oldest are joined in pairs


class RisingLoss:
    """Detects rises of a mean. It keeps blocks of losses (size, sum, sum of squares, squared sum over size) and the
    newest raw losses, from which the window starts again after a change."""

    def __init__(self, false_alarms: float, effect: float) -> None:
        self._false_alarms, self._effect = false_alarms, effect
        self._pending: list[Losses] = []
        self._waiting = 0
        self._newest: deque[Losses] = deque(maxlen=MOST)
        self._extreme = math.inf
        self.level: Level | None = None
        """Rise at the clearest cut of the last check; None before the first one."""
        self._blocks = 0
        self._sizes, self._sums, self._squares, self._means = np.zeros((4, MOST))

    def update(self, losses: Losses) -> Change | None:
        """Add losses [n], except those that are not finite. Return the newest rise that they show; None if none."""
        finite = losses[np.isfinite(losses)].astype(np.float64, copy=False)
        self._pending.append(finite)
        self._waiting += len(finite)
        if self._waiting < BLOCK or (not self._blocks and self._waiting < CALIBRATION):
            return None
        waiting = np.concatenate(self._pending)
        if not self._blocks:
            self._extreme = _extreme(waiting)
        whole = len(waiting) - len(waiting) % BLOCK
        self._pending, self._waiting = [waiting[whole:]], len(waiting) - whole
        newest: Change | None = None
        for end in range(BLOCK, whole + 1, BLOCK):
            if (rise := self._add(waiting[end - BLOCK : end])) is not None:
                newest = msgspec.structs.replace(rise, labels=rise.labels + len(waiting) - end)
        return newest

    def _add(self, losses: Losses) -> Change | None:
        if self._blocks == MOST:
            self._join_oldest()
        at = self._blocks
        cut = np.minimum(losses, self._extreme)
        total = cut.sum()
        self._newest.append(losses)
        self._sizes[at], self._sums[at], self._squares[at] = BLOCK, total, cut @ cut
        self._means[at] = total * total / BLOCK
        self._blocks += 1
        return self._check()

    def _join_oldest(self) -> None:
        """Join the oldest half of the blocks in pairs, because change points there need not be located precisely."""
        half, kept = MOST // 2, MOST - MOST // 4
        for held in (self._sizes, self._sums, self._squares, self._means):
            held[: half // 2] = held[0:half:2] + held[1:half:2]
            held[half // 2 : kept] = held[half:MOST].copy()
        joined = slice(0, half // 2)
        self._means[joined] = self._sums[joined] ** 2 / self._sizes[joined]
        self._blocks = kept

    def _check(self) -> Change | None:
        """Return the rise at the clearest cut, if it is drift. Drop the losses before a rise or a fall."""
        sums, sizes = self._sums[: self._blocks].cumsum(), self._sizes[: self._blocks].cumsum()
        first, last = np.searchsorted(sizes, (LEAST_OLD, sizes[-1] - LEAST_NEW + 1))
        if first >= last:
            return None
        cuts = slice(int(first), int(last))
        old, new = sizes[cuts], sizes[-1] - sizes[cuts]
        before, after = sums[cuts] / old, (sums[-1] - sums[cuts]) / new
        change = after - before
        if not (change.max() > 0 or -change.min() > 0):
            return None
        around = old * before * before
        single = self._squares[: self._blocks].cumsum()[cuts] - around
        between = self._means[: self._blocks].cumsum()[cuts] - around
        variance = np.maximum(np.maximum(single / old, between / np.arange(first, last).clip(min=1)), 0.0)
        share = 1 / old + 1 / new
        penalty = math.log(2 * len(old) / self._false_alarms)
        chance = np.sqrt(2 * penalty * variance * share) + (2 / 3) * penalty * max(self._extreme, 0.0) * share
        least = np.maximum(chance, self._effect * np.sqrt(variance))
        best = int((change - least).argmax())
        self.level = Level(float(change[best]), float(least[best]))
        if change[best] > least[best]:
            rise = Change(
                "loss", float(change[best]), float(least[best]), int(new[best]), float(before[best]), float(after[best])
            )
            self._restart(rise.labels)
            return rise
        fall = int((change + chance).argmin())
        if change[fall] < -chance[fall]:
            self._restart(int(new[fall]))
        return None

    def _restart(self, labels: int) -> None:
        """Keep only the newest `labels` losses, as far as they are held. Compute the bound of extreme losses again."""
        kept = list(self._newest)[-(labels // BLOCK) :]
        losses = np.concatenate(kept)
        self._extreme = _extreme(losses)
        rows = np.minimum(losses, self._extreme).reshape(-1, BLOCK)
        self._blocks = blocks = len(rows)
        self._sizes[:blocks], self._sums[:blocks], self._squares[:blocks] = BLOCK, rows.sum(1), (rows**2).sum(1)
        self._means[:blocks] = self._sums[:blocks] ** 2 / BLOCK


def _extreme(losses: Losses) -> float:
    """Return the bound above which the first losses show that a loss is extreme."""
    first = losses[:CALIBRATION]
    return float(first.mean() + EXTREME * first.std())
