"""Protocol between the retrainer and its training process (pure): msgpack messages behind a four-byte length.

    retrainer -> process   Hello, then any number of Job
                           or: Hello, then Begin and Learn in turns
    process -> retrainer   Ready, then for each Job any number of Progress and one Candidate or Failure,
                           for each Learn one Learned or Failure

Both ends read until the pipe closes. Nothing is pickled. A frame above MAX_BYTES is refused by the sender, before
anything of it is written; a frame above the limit or of an unknown type ends the connection at the receiver.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import IO, TypeAlias

import msgspec

from tailrace.declaration.online import Online
from tailrace.declaration.task import Target
from tailrace.declaration.training import Training
from tailrace.errors import TailraceError
from tailrace.inference.releases.manifest import Golden
from tailrace.retrain.selection.buffer import Row

MAX_BYTES = 1 << 31
_LENGTH = struct.Struct(">I")


class FrameTooLarge(TailraceError):
    """A message does not fit into one frame; the error names its largest field."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """Start of a connection: the process calls `loader` ("module:function") with `reference` to get the pipeline.

    `ranks`: number of processes that train together, including this one.
    """

    loader: str
    reference: str
    threads: int
    nice: int
    ranks: int = 1


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The process has finished its imports and loaded the pipeline; it trains on `device`."""

    device: str


class Job(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """One run. Rows (the event as JSON, values of user functions, target) are in training order, then the holdout.

    `train`: number of rows for training, of which the newest `fresh` are new to the champion. `champion`: safetensors
    to compare with, and to start from if the plan says so; None, or weights that do not fit the module, make the run a
    cold one.

    `online`: online updates keep the champion fresh, so it has learned the holdout too and cannot be compared on it.
    The candidate then starts from fresh weights and goes over the holdout as updates do: each event (of `times`, unix
    seconds) is scored by the weights that had learned the labels known by then (`matured`). The gate compares these
    scores with those that were served.

    `weights`: weight of each `train` row (None: all are 1); `prior`: added to the logits in training.
    """

    features: list[bytes]
    derived: list[list[float | None] | None]
    targets: list[Target]
    train: int
    fresh: int
    champion: bytes | None
    plan: Training
    seed: int
    online: Online | None = None
    times: list[float] = []
    matured: list[float] = []
    weights: list[float] | None = None
    prior: tuple[float, ...] | None = None


class Rows(msgspec.Struct, frozen=True):
    """Examples in the order in which they are learned: the event as JSON, values of user functions, target."""

    features: list[bytes]
    derived: list[list[float | None] | None]
    targets: list[Target]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Convert rows of `retrain.selection.buffer` into columns."""
        return cls([row.features for row in rows], [row.derived for row in rows], [row.target for row in rows])


class Begin(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Message: begin a chain of online updates from weights (safetensors; None: fresh ones). There is no reply."""

    state: bytes | None
    remembered: Rows
    plan: Online
    seed: int


class Learn(msgspec.Struct, tag=True, frozen=True):
    """Message: take one online update on these rows. The reply is Learned or Failure."""

    rows: Rows


class Learned(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Weights after an update (safetensors), and scores of its rows before and after (float32, [rows, outputs]).

    `loss`: mean training loss of the rows before they were learned.
    """

    state: bytes
    before: bytes
    after: bytes
    golden: Golden
    loss: float
    seconds: float


class Progress(msgspec.Struct, tag=True, frozen=True):
    """Mean training loss of a run since the previous report, after `step` of `steps`."""

    step: int
    steps: int
    loss: float


class Candidate(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A trained module: its safetensors, and its and the champion's scores of the holdout (float32, [rows, outputs]).

    `warm`: it started from the champion. `champion_scores`: None where the champion does not fit the module.
    `losses`: (step, mean loss since the previous entry). `seconds`: wall time of the training loop alone.
    """

    state: bytes
    warm: bool
    scores: bytes
    champion_scores: bytes | None
    golden: Golden
    losses: list[tuple[int, float]]
    steps: int
    seconds: float
    device: str


class Failure(msgspec.Struct, tag=True, frozen=True):
    """The process's start, a run or an update failed. `reason`: one of a few metric labels; `detail`: for people."""

    reason: str
    detail: str


Message: TypeAlias = Hello | Ready | Job | Progress | Candidate | Begin | Learn | Learned | Failure

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def send(pipe: IO[bytes], message: Message) -> None:
    """Write one frame. Raises FrameTooLarge before anything is written, and OSError if the other end is closed."""
    try:
        body = _encoder.encode(message)
    except (ValueError, OverflowError) as error:  # msgpack itself has limits of 4 GiB
        raise FrameTooLarge(f"a {type(message).__name__} message cannot be encoded: {error}") from error
    if len(body) > MAX_BYTES:
        raise FrameTooLarge(
            f"a {type(message).__name__} message of {len(body):,} bytes is above the limit of {MAX_BYTES:,}: "
            f"{_largest_field(message)}"
        )
    pipe.write(_LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Message | None:
    """Read one frame; None when the pipe is closed (also in the middle of a frame). Raises msgspec.DecodeError."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_BYTES:
        raise msgspec.DecodeError(f"a frame of {length:,} bytes is above the limit of {MAX_BYTES:,}")
    body = pipe.read(length)
    return _decoder.decode(body) if len(body) == length else None


def _largest_field(message: Message) -> str:
    sizes = {name: len(_encoder.encode(getattr(message, name))) for name in message.__struct_fields__}
    name = max(sizes, key=sizes.__getitem__)
    return f"its field {name} has {sizes[name]:,} bytes"
