"""Default tabular network: an ensemble of an online linear model and two MLPs, tempered by the base rate.

The members have different errors, and their weighted mean is better than each. The linear model follows the newest
labels row by row (plain SGD) and uses online target encoding. The MLPs learn by gradient from the newest rows and from
replayed ones; one replays mostly recent rows, the other older rows too. The state dict holds everything that serving
and further learning need.

Numbers are standardised, and for the MLPs also encoded piecewise-linearly in quantile bins: Gorishniy et al., "On
embeddings for numerical features in tabular deep learning", 2022. Both MLPs are computed in one batched product:
Gorishniy et al., "TabM", 2025. Dropout: Srivastava et al., 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.hooks import LossGradient, ManualGradientModule
from tailrace.inference.models.outputs import predicted
from tailrace.inference.models.tabular.layers import EMBEDDED, Categories, Layers, masks, set_gradients
from tailrace.inference.models.tabular.linear import Linear, output_targets
from tailrace.inference.models.tabular.mixing import Mixer
from tailrace.inference.models.tabular.moments import Moments, moments_of, varies

HALF_LIVES = (1_000.0, 20_000.0)  # replay half-life of each MLP, in examples of age
MANY = len(HALF_LIVES)  # MLPs
HIDDEN = (64, 64)
DROPPED = 0.1  # dropout of hidden layers in online steps, so that replayed rows are not memorised
MULTICLASS_PACE = 2.0  # longer steps for multi-class tasks: a label that is one of many carries more information
BINS = 16  # of a number column at most
BINNED = 160  # bins of all columns at most: with many columns each has fewer, with hundreds none
CLIP = 8.0  # bound of standardised values
LARGEST = 1e30  # bound of numbers: sums of their squares still fit float64
PIECE = 512  # rows that are scored at once
TAKEN = 64  # rows whose gradients for the mixer are taken at the same weights


class TabularNetwork(ManualGradientModule):
    """Module whose logits are the weighted mean of those of the base rate, a linear model and two MLPs.

    It takes raw numbers (NaN: missing) and bucket indices, and standardises and bins the numbers itself. `optional[i]`
    gives number column i a missing flag; `buckets[i]` bounds category column i. A number column is silent (always 0)
    until its values first vary. `prepare` then sets its mean, scale and bins once, because trained weights rely on
    them. Later `absorb` moves mean and scale, and `track` the bins, slowly enough for the weights to follow.

    The names of parameters, buffers and submodules are keys of published weights.
    """

    half_lives = HALF_LIVES
    mean: Tensor
    rate: Tensor
    lows: Tensor
    slopes: Tensor
    edges: Tensor
    fits: Tensor
    shift: Tensor
    scale: Tensor
    prepared: Tensor
    optional: Tensor
    starts: Tensor

    def __init__(self, numbers: int, optional: Sequence[bool], buckets: Sequence[int], task: Task) -> None:
        super().__init__()
        self._task = task
        self.pace = MULTICLASS_PACE if task.kind is Kind.MULTICLASS else 1.0
        bins = min(BINS, BINNED // max(numbers, 1))
        self._bins = bins if bins > 1 else 0
        self.columns = Moments(numbers)
        self.targets = Moments(1)
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("rate", torch.zeros(numbers))  # 1 / standard deviation; 0 while silent
        self.register_buffer("edges", torch.zeros(numbers, self._bins + 1))
        self.register_buffer("lows", torch.zeros(numbers, self._bins))
        self.register_buffer("slopes", torch.zeros(numbers, self._bins))  # 1 / width; 0 for an empty bin
        self.register_buffer("fits", torch.zeros(()))  # number of times that the edges were fitted
        self.register_buffer("shift", torch.zeros(task.outputs))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("prepared", torch.zeros((), dtype=torch.bool))
        may_miss = [i for i, missing in enumerate(optional) if missing]
        self.register_buffer("optional", torch.tensor(may_miss, dtype=torch.int64), persistent=False)
        dense = numbers + len(may_miss)
        encoded = dense + numbers * self._bins
        self.categories = Categories(MANY, buckets, encoded, HIDDEN[0]) if buckets else None
        sizes = [*buckets, *([self._bins + 2] * numbers if self._bins else [])]
        starts = torch.tensor([0, *accumulate(sizes)][len(buckets) : -1], dtype=torch.int64)
        self.register_buffer("starts", starts, persistent=False)  # first table row of each binned number column
        self.linear = Linear(dense, len(buckets), sizes, task)
        self.hidden = nn.ModuleList((Layers(MANY, encoded, HIDDEN[0], EMBEDDED * len(buckets)), Layers(MANY, *HIDDEN)))
        self.head = Layers(MANY, HIDDEN[1], task.outputs)
        self.mixer = Mixer(1 + MANY)
        # A fresh network predicts the base rate: the linear model is zero, the heads nearly so.
        nn.init.normal_(self.head.weight, std=0.05)
        nn.init.zeros_(self.head.bias)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Numbers [n, F] float32 (NaN: missing), categories [n, C] int64 -> logits or values [n, outputs]."""
        return self._mixed(self._member_outputs(numbers, categories))

    def members(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Logits or values of the linear model and of each MLP, shape [n, 1 + MLPs, outputs]."""
        dense = self._dense(numbers)
        rows = None if self.categories is None else self.categories.rows(categories)
        linear = self.linear(dense, self._table_rows(numbers, rows))
        encoded = self._encoded(dense, numbers)
        networks = self._networks(
            encoded.expand(MANY, -1, -1),
            None if rows is None else rows.expand(MANY, -1, -1),
        )
        return torch.cat((linear[:, None], networks.transpose(0, 1)), 1) * self.scale + self.shift

    def encode(self, numbers: Tensor, categories: Tensor) -> tuple[Tensor, ...]:
        """Encode rows for `descend` and draw their dropout masks: numbers [MLPs, b, F], categories [MLPs, b, C]."""
        flat = numbers.flatten(0, 1)
        encoded = self._encoded(self._dense(flat), flat).view(*numbers.shape[:2], -1)
        rows = categories if self.categories is None else self.categories.rows(categories)
        return encoded, rows, *masks(numbers.shape[:2], HIDDEN, DROPPED)

    def descend(self, encoded: Sequence[Tensor], loss_gradient: LossGradient) -> None:
        """Set the MLPs' gradients for one online step, with dropout and without autograd; the linear model gets none.

        `encoded`: rows from `encode`; `loss_gradient`: gradient of the loss at the outputs.
        """
        numbers, rows, *dropout = encoded
        layers = (*self.hidden, self.head)
        inner = partial(self._unscaled_gradient, loss_gradient)
        set_gradients(numbers, rows, dropout, layers, self.categories, DROPPED, inner)

    def _unscaled_gradient(self, loss_gradient: LossGradient, outputs: Tensor) -> Tensor:
        """Gradient with respect to the outputs of the heads, before shift and scale."""
        if self._task.kind is Kind.REGRESSION:
            return loss_gradient(outputs * self.scale + self.shift).mul_(self.scale)
        return loss_gradient(outputs + self.shift)

    @torch.no_grad()
    def prepare(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> None:
        """Set the statistics of the training rows before the first step: the hook `OnlineModule.prepare`.

        The mean, scale and bins of a number column are set when its values first vary, and not again by this method.
        The base rate is set once; for regression it is set again until the targets vary. In train mode the linear model
        counts the rows as learned.
        """
        if self.training:
            self.linear.learned.clamp_(min=len(targets))
        numbers = numbers.clamp(-LARGEST, LARGEST)
        moments = moments_of(numbers)
        joins = (self.rate == 0) & varies(moments.mean, moments.variance.sqrt())
        self.columns.set(moments, joins)
        self._use_moments()
        if self._bins and bool(joins.any()):
            self._use_edges(torch.where(joins[:, None], self._quantiles(numbers), self.edges))
            self.fits.clamp_(min=1)
        if not self.prepared and len(targets):
            self._set_base(targets)

    @torch.no_grad()
    def absorb(self, numbers: Tensor, categories: Tensor, targets: Tensor) -> Tensor:
        """Update the mixer, the moments and the linear model; returns the logits [n, outputs] from before."""
        members = self._member_outputs(numbers, categories)
        before = self._mixed(members)
        for outputs, labels in zip(torch.split(members, TAKEN), torch.split(targets, TAKEN), strict=True):
            self.mixer.absorb(self._weight_gradients(outputs, labels))
        self.columns.add(numbers.clamp(-LARGEST, LARGEST))
        self._use_moments()
        if not self.prepared:
            self._set_base(targets)
        elif self._task.kind is Kind.REGRESSION:
            self.targets.add(targets[:, None])
            self._use_target_moments()
        rows = None if self.categories is None else self.categories.rows(categories)
        if self._task.kind is Kind.REGRESSION:
            targets = ((targets - self.shift) / self.scale).clamp(-CLIP, CLIP)
        self.linear.absorb(self._dense(numbers), self._table_rows(numbers, rows), targets, self.shift)
        return before

    @torch.no_grad()
    def track(self, numbers: Tensor) -> None:
        """Move the bin edges towards the quantiles of `numbers` [n, F]."""
        if self._bins and len(numbers):
            self.fits += 1
            quantiles = self._quantiles(numbers.clamp(-LARGEST, LARGEST))
            moved = torch.lerp(self.edges, quantiles, max(1.0 / float(self.fits), 0.01))
            unset = (self.slopes == 0).all(1, keepdim=True)
            self._use_edges(torch.where(unset, quantiles, moved))

    def _member_outputs(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Outputs of `members`, computed in pieces: activations that do not fit the cache double the time per row."""
        if len(numbers) <= PIECE:
            return self.members(numbers, categories)
        pieces = zip(torch.split(numbers, PIECE), torch.split(categories, PIECE), strict=True)
        return torch.cat([self.members(*piece) for piece in pieces])

    def _mixed(self, members: Tensor) -> Tensor:
        weights = self.mixer.weights
        return (members * weights[:, None]).sum(1) + self.shift * (1.0 - weights.sum())

    def _weight_gradients(self, members: Tensor, targets: Tensor) -> Tensor:
        """Gradient of each row's loss with respect to the mixer's weights: [n, members], from outputs
        [n, members, outputs].

        The loss of regression is half the squared error in units of the variance, linear beyond CLIP deviations.
        """
        kind, outputs = self._task.kind, self._task.outputs
        error = predicted(kind, self._mixed(members)) - output_targets(kind, targets, outputs)
        added = members - self.shift
        if kind is Kind.REGRESSION:
            error, added = (error / self.scale).clamp(-CLIP, CLIP), added / self.scale
        gradients = (error[:, None] * added).sum(2)
        return gradients / outputs if kind is Kind.MULTILABEL else gradients

    def _dense(self, numbers: Tensor) -> Tensor:
        """Standardised numbers and missing flags, shape [n, dense]."""
        dense = (numbers - self.mean).mul_(self.rate).clamp_(-CLIP, CLIP).nan_to_num_(0.0)
        if len(self.optional):
            dense = torch.cat((dense, numbers.index_select(1, self.optional).isnan().to(dense.dtype)), 1)
        return dense

    def _table_rows(self, numbers: Tensor, rows: Tensor | None) -> Tensor:
        """Rows [n, C + F] of category values and bins in the table of the target encoding.

        A missing number has the first row of its column.
        """
        if not self._bins:
            return numbers.new_empty((len(numbers), 0), dtype=torch.int64) if rows is None else rows
        bins = torch.searchsorted(self.lows, numbers.T.contiguous()).T + 1
        bins = bins.masked_fill_(numbers.isnan(), 0).add_(self.starts)
        return bins if rows is None else torch.cat((rows, bins), 1)

    def _encoded(self, dense: Tensor, numbers: Tensor) -> Tensor:
        """Inputs of the MLPs made of numbers: dense columns and piecewise-linear bins, shape [n, encoded]."""
        if not self._bins:
            return dense
        binned = (numbers[:, :, None] - self.lows).mul_(self.slopes).clamp_(0.0, 1.0).nan_to_num_(0.0).flatten(1)
        return torch.cat((dense, binned), 1)

    def _networks(self, encoded: Tensor, rows: Tensor | None) -> Tensor:
        """Encoded numbers [MLPs, b, encoded] and rows of the table of categories [MLPs, b, C] -> [MLPs, b, outputs]."""
        first, second = self.hidden
        hidden = first(encoded)
        if self.categories is not None and rows is not None:
            hidden = self.categories(rows, hidden)
        outputs: Tensor = self.head(second(hidden.relu_()).relu_())
        return outputs

    def _use_moments(self) -> None:
        mean, deviation = self.columns.mean, self.columns.variance.sqrt()
        self.mean.copy_(mean)
        self.rate.copy_(torch.where(varies(mean, deviation), 1.0 / deviation, 0.0))

    def _use_target_moments(self) -> None:
        mean, deviation = self.targets.mean, self.targets.variance.sqrt()
        self.shift.copy_(mean)
        self.scale.copy_(torch.where(varies(mean, deviation), deviation, 1.0)[0])

    def _quantiles(self, numbers: Tensor) -> Tensor:
        """Quantiles of each column, shape [F, bins + 1]; 0 for a column without values."""
        levels = torch.linspace(0.0, 1.0, self._bins + 1, device=numbers.device)
        return torch.nanquantile(numbers, levels, dim=0).T.nan_to_num(0.0)

    def _use_edges(self, edges: Tensor) -> None:
        width = edges.diff(dim=1)
        filled = width > 1e-6 * edges.abs().amax(1, keepdim=True)
        self.edges.copy_(edges)
        self.lows.copy_(edges[:, :-1])
        self.slopes.copy_(torch.where(filled, 1.0 / width, 0.0))

    def _set_base(self, targets: Tensor) -> None:
        """Set the base rate from targets, and `prepared` to True.

        Regression targets that do not vary define no scale: `prepared` is False then, and the base rate is set again.
        """
        self.prepared.fill_(True)
        if self._task.kind is Kind.REGRESSION:
            self.targets.set(moments_of(targets[:, None]), torch.ones_like(self.targets.count, dtype=torch.bool))
            self._use_target_moments()
            self.prepared.copy_(varies(self.targets.mean, self.targets.variance.sqrt())[0])
        elif self._task.kind is Kind.BINARY:
            self.shift.fill_(((targets.double().sum() + 1) / (len(targets) + 2)).logit())
        elif self._task.kind is Kind.MULTILABEL:
            self.shift.copy_(((targets.double().sum(0) + 1) / (len(targets) + 2)).logit())
        else:
            counts = torch.bincount(targets.long(), minlength=self._task.outputs) + 1.0
            self.shift.copy_((counts / counts.sum()).log())
