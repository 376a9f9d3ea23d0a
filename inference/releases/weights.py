"""Weights as safetensors bytes, never pickle. The header is read without torch, so that it is checked before torch.

A file is a u64 header length, a JSON header {name: {dtype, shape, data_offsets}}, and the data without gaps
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_EXPONENTS: dict[str, tuple[str, int]] = {  # all bits of the exponent set: inf or NaN (IEEE 754)
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


class TensorSpec(msgspec.Struct, frozen=True):
    """Name, type ("F32", "BF16", "I64", ...) and shape of a tensor."""

    name: str
    dtype: str
    shape: list[int]


class RawTensor(NamedTuple):
    """Specification and bytes of a tensor in a file."""

    spec: TensorSpec
    data: memoryview

    def is_finite(self) -> bool:
        """True if the tensor holds neither inf nor NaN."""
        if self.spec.dtype not in _EXPONENTS:
            return True
        kind, mask = _EXPONENTS[self.spec.dtype]
        return not bool((np.frombuffer(self.data, kind) & np.array(mask, kind) == mask).any())


def serialise(state: Mapping[str, Tensor]) -> bytes:
    """Convert a state dict to safetensors bytes; equal states give equal bytes."""
    from safetensors.torch import save

    return bytes(save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}))


def load_state(payload: bytes) -> dict[str, Tensor]:
    """Read the state dict of a *verified* payload."""
    from safetensors.torch import load

    return dict(load(payload))


def read_tensors(payload: bytes, max_header: int = 1_000_000, max_tensors: int = 10_000) -> list[RawTensor]:
    """Return the tensors of a file in the order of their data. Raises ValueError for an invalid header or a gap."""
    length = int.from_bytes(payload[:8], "little")
    if len(payload) < 8 or length > min(max_header, len(payload) - 8):
        raise ValueError(f"the header claims {length} bytes")
    try:
        entries = msgspec.json.decode(payload[8 : 8 + length], type=dict[str, _Entry])
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if len(entries) > max_tensors:
        raise ValueError(f"{len(entries)} tensors, the limit is {max_tensors}")
    data, position, tensors = memoryview(payload)[8 + length :], 0, []
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].data_offsets, item[0])):
        start, end = entry.data_offsets
        if entry.size < 0:
            types = ", ".join(_WIDTHS)
            raise ValueError(f"tensor {name!r} has type {entry.dtype} and shape {entry.shape}: types are {types}")
        if start != position or end - start != entry.size or end > len(data):
            raise ValueError(f"tensor {name!r} does not start where the one before it ends")
        tensors.append(RawTensor(TensorSpec(name, entry.dtype, entry.shape), data[start:end]))
        position = end
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes belong to no tensor")
    return tensors


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        """Size in bytes; -1 for an unsupported type or shape."""
        if self.dtype not in _WIDTHS or any(extent < 0 for extent in self.shape):
            return -1
        return _WIDTHS[self.dtype] * math.prod(self.shape)
