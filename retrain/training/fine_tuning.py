"""Fine-tuning: frozen parameters, and the transfer of weights from another network. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from tailrace.errors import DeclarationError


def freeze(module: nn.Module, frozen: Sequence[str]) -> list[nn.Parameter]:
    """Freeze the parameters whose names match a pattern of `frozen`; return the parameters that remain trainable.

    Raises DeclarationError for a pattern that matches no parameter, and if no parameter remains.
    """
    names = dict(module.named_parameters())
    for pattern in frozen:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            shown = ", ".join(names)
            raise DeclarationError(f"Training(frozen): {pattern!r} matches no parameter; the network has {shown}")
        for name in matching:
            names[name].requires_grad_(False)
    left = [parameter for parameter in names.values() if parameter.requires_grad]
    if frozen and not left:
        raise DeclarationError(f"Training(frozen={tuple(frozen)!r}) leaves no parameter to train")
    return left


def transfer_weights(module: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Copy into `module` each tensor of `state` for which it has a tensor of equal name and shape.

    Returns the number of copied tensors.
    """
    own = module.state_dict()
    fitting = [name for name, tensor in state.items() if name in own and own[name].shape == tensor.shape]
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(state[name])
    return len(fitting)
