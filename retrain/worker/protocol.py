"""What the retrainer and its training process say to each other (pure): msgpack messages behind a four-byte length.

    retrainer -> process   Hello, then any number of Job
                           or: Hello, then Begin and Learn in turns
    process -> retrainer   Ready, then for each Job any number of Progress and one Candidate or Failure,
                           for each Learn one Learned or Failure

Both ends read until the pipe closes. Nothing is pickled; a frame above the limit or of an unknown type ends the talk.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import IO, TypeAlias

import msgspec

from tailrace.declaration.online import Online
from tailrace.declaration.training import Training
from tailrace.inference.releases.manifest import Golden
from tailrace.retrain.selection.buffer import Row

MAX_BYTES = 1 << 31
_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, tag=True, frozen=True):
    """How the process gets the pipeline: `loader` ("module:function") is called with `reference`. `ranks`: how many
    processes train, this one among them."""

    loader: str
    reference: str
    threads: int
    nice: int
    ranks: int = 1


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The process has imported what it needs and loaded the pipeline; `device` is where it trains."""

    device: str


class Job(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """One run. Rows (JSON of the event, derived values, target) lie in training order, the holdout behind them.

    `train` rows are for training, of which the newest `fresh` are new to the champion. `champion`: the safetensors to
    compare with, and to start from when the plan says so; None, or a module they do not fit, makes the run a cold one.

    `online`: the champion is kept fresh by online updates, it has learned the holdout too and cannot be compared on it.
    So the candidate starts from fresh weights and goes over the holdout as updates do: each event (of `times`, unix
    seconds) is scored by what had learned the labels known by then (`matured`). The gate compares that with what was
    served.

    `weights`: how much each `train` row counts (None: all the same); `prior`: what is added to the logits in training.
    """

    features: list[bytes]
    derived: list[list[float | None] | None]
    targets: list[float]
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
    """Examples in the order in which they are learned: JSON of the event, derived values, target."""

    features: list[bytes]
    derived: list[list[float | None] | None]
    targets: list[float]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Rows:
        """Rows of the buffer."""
        return cls([row.features for row in rows], [row.derived for row in rows], [row.target for row in rows])


class Begin(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """Begin a chain of online updates from these weights (safetensors; None: fresh ones). No answer."""

    state: bytes | None
    remembered: Rows
    plan: Online
    seed: int


class Learn(msgspec.Struct, tag=True, frozen=True):
    """One online update."""

    rows: Rows


class Learned(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """The weights after an update (safetensors), and the scores of its rows before and after (float32, [rows,
    outputs]). `loss`: the rows' mean training loss before they were learned."""

    state: bytes
    before: bytes
    after: bytes
    golden: Golden
    loss: float
    seconds: float


class Progress(msgspec.Struct, tag=True, frozen=True):
    """After `step` of `steps`, the mean training loss since the last report."""

    step: int
    steps: int
    loss: float


class Candidate(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """A trained module: its safetensors, its and the champion's scores on the holdout (float32, [rows, outputs]).

    `warm`: it started from the champion. `champion_scores`: None where the champion does not fit the module.
    `losses`: (step, mean loss since the one before). `seconds`: of the training loop alone.
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
    """The run, or the start, did not succeed. `reason` is one of a few words (a metric label), `detail` for people."""

    reason: str
    detail: str


Message: TypeAlias = Hello | Ready | Job | Progress | Candidate | Begin | Learn | Learned | Failure

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def send(pipe: IO[bytes], message: Message) -> None:
    """Write one frame. Raises OSError when the other end is gone."""
    body = _encoder.encode(message)
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
