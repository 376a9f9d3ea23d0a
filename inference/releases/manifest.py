"""Release format (pure): a signed manifest and safetensors bytes, split into records, and their verification.

    release/<version>/chunk/<n>   part of the payload
    release/<version>/manifest    {"key_id", "signature", "manifest"}, written after the chunks in the same transaction
    alias/<name>                  {"version", "actor", "reason", "time"}: the release of an alias, such as champion

The signature (Ed25519, over a prefix and the exact bytes of the manifest) is checked before the manifest is parsed.
Size and SHA-256 are checked before the payload is parsed, its header before tensors are made. Weights must be finite.
Nothing is unpickled: the payload is safetensors.

Errors:

    Refused(reason, detail)   `reason` is one of REASONS (a label value of a metric), `detail` is text for people
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tailrace.declaration.task import Task
from tailrace.errors import Exit, TailraceError
from tailrace.inference.models.columns import Floats
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.releases.weights import TensorSpec, read_tensors
from tailrace.inference.releases.weights import load_state as load_state
from tailrace.inference.releases.weights import serialise as serialise
from tailrace.streams.log.codec import UNDECODABLE
from tailrace.streams.log.records import Out

CHUNK_BYTES = 512 * 1024
_PREFIX = b"tailrace release 1\n"
REASONS = frozenset(
    (
        "unknown_key",
        "revoked_key",
        "bad_signature",
        "bad_manifest",
        "too_large",
        "digest_mismatch",
        "bad_header",
        "non_finite",
        "wrong_version",
        "wrong_features",
        "wrong_task",
        "wrong_model",
        "golden_mismatch",
        "incomplete",
    )
)


class Refused(TailraceError):
    """A release must not be served. `reason` is one of REASONS, `detail` is text for people."""

    exit_code = Exit.REFUSED

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Limits(msgspec.Struct, frozen=True):
    """Maximum sizes of a release; a larger one is refused."""

    payload_bytes: int = 1 << 30
    manifest_bytes: int = 1_000_000
    header_bytes: int = 1_000_000
    """Size of the safetensors header."""
    tensors: int = 10_000


class Range(msgspec.Struct, frozen=True):
    """Records of one partition that were learned: start <= offset < end."""

    topic: str
    partition: int
    start: int
    end: int


class Updates(msgspec.Struct, frozen=True, kw_only=True):
    """Chain of online updates that made the weights; enough to repeat it.

    The chain began with the weights of release `base` (0: fresh weights, made with `seed`) and with the examples
    `remembered` in the replay buffer. `starts` maps each partition to the first offset that the chain learned, and
    `learned[i]` to the number of offsets by which the i-th update advanced. `plan` holds the fields of `Online`.
    """

    base: int
    seed: int
    remembered: list[Range]
    starts: dict[int, int]
    learned: list[dict[int, int]]
    plan: dict[str, Any]


class Golden(msgspec.Struct, frozen=True):
    """Golden batch: a few encoded rows and the trainer's scores for them, which each worker must reproduce."""

    numbers: list[list[float | None]] = []
    categories: list[list[int]] = []
    scores: list[list[float]] = []

    @classmethod
    def of(cls, inputs: Inputs, scores: Floats) -> Golden:
        """Make a golden batch of n rows and their scores, shape [n, outputs]."""
        numbers = [[None if value != value else value for value in row] for row in inputs.numbers.tolist()]
        return cls(numbers, inputs.categories.tolist(), scores.tolist())

    def inputs(self) -> Inputs:
        """The rows as input of a model."""
        rows = len(self.numbers)
        numbers = np.array(self.numbers, np.float32).reshape(rows, -1) if rows else np.empty((0, 0), np.float32)
        return Inputs(numbers, np.array(self.categories, np.int64).reshape(rows, -1 if rows else 0))


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Description of one release. Times in unix seconds; parent 0 is the base rate. `pack` sets the last fields."""

    version: int
    parent: int
    created: float
    trained_through: float  # time of the newest event that was learned
    examples: int
    code_digest: str
    seed: int
    reason: str  # the reason that the trigger gave
    features: str  # Features.digest
    task: Task
    golden: Golden
    ranges: list[Range] = []
    base: int = 0  # the release whose weights training started from; 0: fresh weights
    updates: Updates | None = None  # None: a training run made the weights
    facts: dict[str, Any] = {}  # facts on which the trigger decided
    metrics: dict[
        str, dict[str, float | None]
    ] = {}  # "candidate" and "champion" -> metric -> value on the gate's examples
    tensors: list[TensorSpec] = []
    sha256: str = ""
    size: int = 0
    chunks: int = 0
    location: str | None = None  # URL of the payload, if it is not in chunks


class Signed(msgspec.Struct, frozen=True):
    """Value of a manifest record. `manifest` holds the exact bytes that were signed."""

    key_id: str
    signature: str  # hex
    manifest: msgspec.Raw


class Alias(msgspec.Struct, frozen=True):
    """Value of an alias record. `time` in unix seconds."""

    version: int
    actor: str
    reason: str
    time: float


class Release(NamedTuple):
    """Release that is ready to be published. `signed` is the value of the manifest record."""

    manifest: Manifest
    signed: bytes
    payload: bytes


def pack(manifest: Manifest, payload: bytes, key: SigningKey, location: str | None = None) -> Release:
    """Return the release of a payload (see `serialise`): its manifest completed and signed. `location`: URL, if any."""
    complete = msgspec.structs.replace(
        manifest,
        tensors=[tensor.spec for tensor in read_tensors(payload)],
        sha256=hashlib.sha256(payload).hexdigest(),
        size=len(payload),
        chunks=0 if location else -(-len(payload) // CHUNK_BYTES),
        location=location,
    )
    encoded = msgspec.json.encode(complete)
    signature = key.sign(_PREFIX + encoded).hex()
    return Release(complete, msgspec.json.encode(Signed(key.key_id, signature, msgspec.Raw(encoded))), payload)


def release_records(release: Release, topic: str) -> list[Out]:
    """The records of a release, to be written in this order in one transaction."""
    manifest, payload = release.manifest, release.payload
    cuts = (payload[n * CHUNK_BYTES : (n + 1) * CHUNK_BYTES] for n in range(manifest.chunks))
    chunks = [Out(topic, chunk_key(manifest.version, n), cut) for n, cut in enumerate(cuts)]
    return [*chunks, Out(topic, manifest_key(manifest.version), release.signed)]


def tombstones(version: int, chunks: Iterable[int], topic: str) -> list[Out]:
    """The records that delete a release with these chunks."""
    return [Out(topic, key, None) for key in (manifest_key(version), *(chunk_key(version, n) for n in chunks))]


def alias_record(topic: str, alias: str, version: int, actor: str, reason: str, time: float) -> Out:
    """The record that points an alias to a release; version 0 is the base rate."""
    return Out(topic, f"alias/{alias}".encode(), msgspec.json.encode(Alias(version, actor, reason, time)))


def release_prefix(version: int) -> bytes:
    """Common prefix of the keys of a release's records."""
    return f"release/{version:08d}/".encode()


def manifest_key(version: int) -> bytes:
    """Key of the manifest record of a release."""
    return release_prefix(version) + b"manifest"


def chunk_key(version: int, n: int) -> bytes:
    """Key of the n-th chunk of a release."""
    return release_prefix(version) + f"chunk/{n}".encode()


def parse(signed: bytes) -> tuple[Signed, Manifest]:
    """Parse a manifest record WITHOUT verifying it, to show it or count its chunks. Raises Refused (bad_manifest)."""
    try:
        envelope = msgspec.json.decode(signed, type=Signed)
        return envelope, msgspec.json.decode(envelope.manifest, type=Manifest)
    except UNDECODABLE as error:
        raise Refused("bad_manifest", str(error)) from None


def verify(signed: bytes, payload: bytes, trusted: TrustedKeys, limits: Limits | None = None) -> Manifest:
    """Verify signature, manifest and payload of a release, and return its manifest. Raises Refused."""
    manifest = verify_manifest(signed, trusted, limits)
    verify_payload(manifest, payload, limits)
    return manifest


def verify_manifest(signed: bytes, trusted: TrustedKeys, limits: Limits | None = None) -> Manifest:
    """Check the signature, then parse the manifest. Raises Refused."""
    limits = limits or Limits()
    if len(signed) > limits.manifest_bytes:
        raise Refused("too_large", f"the manifest has {len(signed)} bytes, the limit is {limits.manifest_bytes}")
    try:
        envelope = msgspec.json.decode(signed, type=Signed)
        signature = bytes.fromhex(envelope.signature)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_manifest", str(error)) from None
    objection = trusted.objection(envelope.key_id, signature, _PREFIX + bytes(envelope.manifest))
    if objection:
        raise Refused(objection, f"key {envelope.key_id[:32]!r}; trusted are {sorted(trusted.ids)}")
    return parse(signed)[1]


def verify_payload(manifest: Manifest, payload: bytes, limits: Limits | None = None) -> None:
    """Check size, digest, header and weights of a payload against a verified manifest. Raises Refused."""
    limits = limits or Limits()
    if max(len(payload), manifest.size) > limits.payload_bytes:
        raise Refused("too_large", f"the payload has {len(payload)} bytes, the limit is {limits.payload_bytes}")
    if len(payload) != manifest.size or hashlib.sha256(payload).hexdigest() != manifest.sha256:
        raise Refused(
            "digest_mismatch", f"{len(payload)} bytes; expected {manifest.size} with SHA-256 {manifest.sha256}"
        )
    try:
        tensors = read_tensors(payload, limits.header_bytes, limits.tensors)
    except ValueError as error:
        raise Refused("bad_header", str(error)) from None
    if [tensor.spec for tensor in tensors] != manifest.tensors:
        raise Refused("bad_header", "names, shapes or types of the tensors are not those of the manifest")
    for tensor in tensors:
        if not tensor.is_finite():
            raise Refused("non_finite", f"tensor {tensor.spec.name!r} holds inf or NaN")
