"""Steps of a run on a single row, for modules that cannot train on one row alone. Importing this imports torch.

Layers that normalise over the rows of a batch (BatchNorm) raise, or return NaN, for a batch of one row in train mode. A
step gets one row wherever the number of rows leaves one over: in the last batch of a pass, in a rank's share of a
batch, or in every batch if the declared batch size is 1. For such modules the step learns a neighbouring row too. Other
modules get no second row, so that their weights stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tailrace.inference.models.hooks import member_outputs


def trains_on_one_row(module: nn.Module, numbers: Tensor, categories: Tensor) -> bool:
    """Try one row, numbers [1, F] and categories [1, C], in train mode: True if outputs and gradients are finite.

    State, gradients and mode of the module and the random state are the same afterwards. A module that cannot train for
    another reason gives False; the next step then raises the error.
    """
    training, before = module.training, [tensor.clone() for tensor in module.state_dict().values()]
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if numbers.is_cuda else []), torch.enable_grad():
        try:
            outputs = member_outputs(module.train(), numbers, categories)
            gradients = torch.autograd.grad(outputs.sum(), parameters, allow_unused=True) if parameters else ()
            tensors = [outputs, *(gradient for gradient in gradients if gradient is not None)]
            return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
        except Exception:  # the module is the user's: it may raise anything
            return False
        finally:
            module.train(training)
            with torch.no_grad():
                for tensor, old in zip(module.state_dict().values(), before, strict=True):
                    tensor.copy_(old)


def accompanied(batches: Sequence[Tensor], rows: int) -> list[Tensor]:
    """Add a second row index to each batch of one: the row before it among `rows` rows; for row 0 the one after it."""
    return [batch if len(batch) != 1 else torch.cat((batch, _neighbour(batch, rows))) for batch in batches]


def _neighbour(row: Tensor, rows: int) -> Tensor:
    return torch.where(row > 0, row - 1, min(1, rows - 1))
