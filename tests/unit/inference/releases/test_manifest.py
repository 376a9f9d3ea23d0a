"""Keys, signed releases, and everything that must be refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from support.waiting import PATIENCE_S

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.releases.manifest import (
    CHUNK_BYTES,
    REASONS,
    Golden,
    Limits,
    Manifest,
    Range,
    Refused,
    Signed,
    alias_record,
    load_state,
    pack,
    parse,
    release_records,
    serialise,
    tombstones,
    verify,
)
from tailrace.inference.releases.signing import (
    BadKey,
    SigningKey,
    TrustedKeys,
    create_keys,
    load_signing_key,
    load_trusted_keys,
)
from tailrace.inference.releases.storage import StoreUnreachable, fetch_payload, remove_payload, store_payload

KEY = SigningKey.generate()
TRUSTED = TrustedKeys([KEY.public_pem()])
STATE = {
    "layer.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flag": torch.tensor(True),
    "nothing": torch.zeros(0, 4),
}


def manifest(version: int = 1) -> Manifest:
    return Manifest(
        version=version,
        parent=version - 1,
        created=1.7e9,
        trained_through=1.6e9,
        examples=100,
        code_digest="c0de",
        seed=0,
        reason="labels",
        features="f" * 64,
        task=Task(Kind.MULTICLASS, ("a", 2, True)),
        golden=Golden([[1.5, None]], [[3]], [[0.1, 0.2, 0.7]]),
        ranges=[Range("flights.examples", 0, 10, 110)],
        metrics={"candidate": {"log_loss": 0.5}, "champion": {"log_loss": None}},
    )


PAYLOAD = serialise(STATE)
RELEASE = pack(manifest(), PAYLOAD, KEY)


def with_header(entries: object, data: bytes = b"") -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


def signed(payload: bytes) -> bytes:
    """A manifest that a trusted but mad publisher signed for this payload."""
    complete = msgspec.structs.replace(
        RELEASE.manifest, size=len(payload), sha256=hashlib.sha256(payload).hexdigest(), tensors=[]
    )
    encoded = msgspec.json.encode(complete)
    signature = KEY.sign(b"tailrace release 1\n" + encoded).hex()
    return msgspec.json.encode(Signed(KEY.key_id, signature, msgspec.Raw(encoded)))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        action()
    assert refused.value.reason in REASONS
    return refused.value.reason


def test_a_release_survives_the_journey() -> None:
    """What was packed is verified and loaded bit by bit, manifest, tensors of every type and buffers alike."""
    received = verify(RELEASE.signed, RELEASE.payload, TRUSTED)
    assert received == RELEASE.manifest
    state = load_state(RELEASE.payload)
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], STATE[name]) and state[name].dtype == STATE[name].dtype for name in STATE)


def test_equal_states_are_equal_bytes() -> None:
    """The order in which tensors are named, and memory that they share, change nothing."""
    shared = torch.ones(4)
    assert serialise({"a": shared, "b": shared[:2]}) == serialise({"b": torch.ones(2), "a": torch.ones(4)})


def test_any_changed_byte_is_noticed() -> None:
    """A flipped bit anywhere in the signed manifest or in the payload is refused."""
    for i in range(0, len(RELEASE.signed), 7):
        changed = bytearray(RELEASE.signed)
        changed[i] ^= 1
        reason = refusal(lambda changed=changed: verify(bytes(changed), PAYLOAD, TRUSTED))  # type: ignore[misc]
        assert reason in {"bad_signature", "bad_manifest", "unknown_key"}
    for i in range(0, len(PAYLOAD), 7):
        changed = bytearray(PAYLOAD)
        changed[i] ^= 1
        assert refusal(lambda changed=changed: verify(RELEASE.signed, bytes(changed), TRUSTED)) == "digest_mismatch"  # type: ignore[misc]


def test_only_trusted_keys_count() -> None:
    """A stranger's signature, a revoked key and a key id that is not the signer's are refused."""
    stranger = SigningKey.generate()
    foreign = pack(manifest(), PAYLOAD, stranger).signed
    assert refusal(lambda: verify(foreign, PAYLOAD, TRUSTED)) == "unknown_key"
    revoking = TrustedKeys([KEY.public_pem(), stranger.public_pem()], revoked=[KEY.key_id])
    assert refusal(lambda: verify(RELEASE.signed, PAYLOAD, revoking)) == "revoked_key"
    assert verify(foreign, PAYLOAD, revoking) == RELEASE.manifest
    impostor = msgspec.structs.replace(msgspec.json.decode(foreign, type=Signed), key_id=KEY.key_id)
    assert refusal(lambda: verify(msgspec.json.encode(impostor), PAYLOAD, TRUSTED)) == "bad_signature"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        with_header([]),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        with_header({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)),
        with_header({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 1]}}, bytes(1)),
        with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, bytes(2)),
        with_header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, bytes(1)),
        b"\x80\x04cos\nsystem\n",
    ],
)
def test_a_hostile_payload_is_refused_even_if_signed(payload: bytes) -> None:
    """Headers that lie about lengths, offsets, types or names are refused before a tensor is made."""
    assert refusal(lambda: verify(signed(payload), payload, TRUSTED)) == "bad_header"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused(dtype: torch.dtype, value: float) -> None:
    """One inf or NaN in any float type is enough."""
    release = pack(manifest(), serialise({"w": torch.tensor([1.0, value, 2.0], dtype=dtype)}), KEY)
    assert refusal(lambda: verify(release.signed, release.payload, TRUSTED)) == "non_finite"


def test_limits_bound_what_is_looked_at() -> None:
    """A payload, manifest, header or tensor count above its limit is refused."""

    def check(limits: Limits) -> str:
        return refusal(lambda: verify(RELEASE.signed, PAYLOAD, TRUSTED, limits))

    assert check(Limits(payload_bytes=10)) == "too_large"
    assert check(Limits(manifest_bytes=10)) == "too_large"
    assert check(Limits(header_bytes=10)) == "bad_header"
    assert check(Limits(tensors=1)) == "bad_header"


@pytest.mark.parametrize(
    "garbage", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"key_id":"","signature":"zz","manifest":1}']
)
def test_a_garbage_manifest_is_refused(garbage: bytes) -> None:
    """Nothing that is no manifest gets further than that."""
    assert refusal(lambda: verify(garbage, PAYLOAD, TRUSTED)) == "bad_manifest"
    assert refusal(lambda: parse(garbage)) == "bad_manifest"


def test_unknown_fields_of_a_newer_publisher_do_not_break_the_signature() -> None:
    """The exact bytes are signed, so a field that this version does not know is verified and ignored."""
    encoded = msgspec.json.encode({**msgspec.to_builtins(RELEASE.manifest), "novelty": 1})
    signature = KEY.sign(b"tailrace release 1\n" + encoded).hex()
    newer = msgspec.json.encode(Signed(KEY.key_id, signature, msgspec.Raw(encoded)))
    assert verify(newer, PAYLOAD, TRUSTED) == RELEASE.manifest


def test_records_are_cut_and_keyed_for_a_compacted_topic() -> None:
    """Chunks below the limit, in order, the manifest last; tombstones name exactly the same keys."""
    big = pack(manifest(12), serialise({"w": torch.zeros(300_000)}), KEY)
    records = release_records(big, "m")
    assert [r.key for r in records] == [b"release/00000012/chunk/%d" % n for n in range(3)] + [
        b"release/00000012/manifest"
    ]
    assert b"".join(r.value or b"" for r in records[:-1]) == big.payload
    assert max(len(r.value or b"") for r in records) <= CHUNK_BYTES
    removed = tombstones(12, range(3), "m")
    assert {r.key for r in removed} == {r.key for r in records}
    assert all(r.value is None for r in removed)


def test_an_alias_record_says_who_and_why() -> None:
    """Its key is the alias, its value readable JSON."""
    record = alias_record("m", "champion", 7, "ada", "rollback", 1.5)
    assert record.key == b"alias/champion"
    assert json.loads(record.value or b"") == {"version": 7, "actor": "ada", "reason": "rollback", "time": 1.5}


def test_a_golden_batch_travels_whole() -> None:
    """Rows and missing values come back as they were encoded."""
    inputs = Inputs(np.array([[1.25, np.nan], [0.1, 3.0]], np.float32), np.array([[0], [9]], np.int64))
    golden = Golden.of(inputs, np.array([[0.5], [0.25]], np.float32))
    back = msgspec.json.decode(msgspec.json.encode(golden), type=Golden).inputs()
    np.testing.assert_array_equal(inputs.numbers, back.numbers)
    np.testing.assert_array_equal(inputs.categories, back.categories)


@pytest.mark.parametrize("columns", [(0, 2), (2, 0)])
def test_a_golden_batch_may_lack_numbers_or_categories(columns: tuple[int, int]) -> None:
    """Features of one kind only keep their row count."""
    inputs = Inputs(np.zeros((3, columns[0]), np.float32), np.zeros((3, columns[1]), np.int64))
    back = Golden.of(inputs, np.zeros((3, 1), np.float32)).inputs()
    assert (back.numbers.shape, back.categories.shape) == ((3, columns[0]), (3, columns[1]))


@pytest.mark.parametrize("scheme", ["memory://tailrace-tests", "file://{tmp}/models"])
def test_a_payload_may_lie_at_a_url(scheme: str, tmp_path: Path) -> None:
    """Stored payloads are fetched again; a release that names a location has no chunks."""
    location = store_payload(scheme.format(tmp=tmp_path), 3, PAYLOAD)
    release = pack(manifest(3), PAYLOAD, KEY, location)
    assert (release.manifest.chunks, len(release_records(release, "m"))) == (0, 1)
    fetched = fetch_payload(release.manifest, max_bytes=1 << 20)
    assert verify(release.signed, fetched, TRUSTED) == release.manifest
    assert refusal(lambda: fetch_payload(release.manifest, max_bytes=10)) == "too_large"
    remove_payload("memory://elsewhere", release.manifest)  # not below this URL: left alone
    assert fetch_payload(release.manifest, max_bytes=1 << 20) == fetched
    for _ in range(2):  # also when it is gone already
        remove_payload(scheme.format(tmp=tmp_path), release.manifest)
    with pytest.raises(StoreUnreachable):
        fetch_payload(release.manifest, max_bytes=1 << 20)


def test_an_unreachable_store_is_one_clear_error(tmp_path: Path) -> None:
    """The error names the location."""
    gone = msgspec.structs.replace(RELEASE.manifest, location=f"file://{tmp_path}/gone.safetensors")
    with pytest.raises(StoreUnreachable, match=r"cannot read .*gone\.safetensors"):
        fetch_payload(gone, 1 << 20)
    with pytest.raises(StoreUnreachable, match="cannot write nosuch://x"):
        store_payload("nosuch://x", 1, b"")


def test_keys_are_created_once(tmp_path: Path) -> None:
    """The private key is for its owner alone, its public half is trusted, and asking again changes nothing."""
    key = create_keys(tmp_path)
    assert (tmp_path / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert create_keys(tmp_path).key_id == key.key_id
    assert load_trusted_keys(tmp_path).ids == {key.key_id}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        [f"{key.key_id}.pub", "signing.pem"]
    )


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    """Several processes creating keys at once all get the same one."""
    program = (
        "import sys, pathlib, tailrace.inference.releases.signing as k; "
        "print(k.create_keys(pathlib.Path(sys.argv[1])).key_id)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {process.communicate(timeout=PATIENCE_S)[0].strip() for process in processes}
    assert found == load_trusted_keys(tmp_path).ids
    assert len(found) == 1


def test_revoking_is_moving_a_file(tmp_path: Path) -> None:
    """A public key in `revoked/` is refused, and creating keys does not bring it back."""
    key = create_keys(tmp_path)
    (tmp_path / "revoked").mkdir()
    name = f"{key.key_id}.pub"
    (tmp_path / "trusted" / name).rename(tmp_path / "revoked" / name)
    create_keys(tmp_path)
    keys = load_trusted_keys(tmp_path)
    assert not keys.ids
    assert keys.revoked == {key.key_id}
    release = pack(manifest(), PAYLOAD, key)
    assert refusal(lambda: verify(release.signed, PAYLOAD, keys)) == "revoked_key"


def test_bad_key_files_are_clear_errors(tmp_path: Path) -> None:
    """Missing, readable by others, garbage or of another kind: each error names the file and the fix."""
    path = tmp_path / "signing.pem"
    with pytest.raises(BadKey, match=r"cannot read the signing key .*signing\.pem \(No such file"):
        load_signing_key(path)
    path.write_bytes(KEY.pem())
    path.chmod(0o644)
    with pytest.raises(BadKey, match="mode 0644, others may read it: run `chmod 600"):
        load_signing_key(path)
    path.chmod(0o600)
    assert load_signing_key(path).key_id == KEY.key_id
    path.write_bytes(b"garbage")
    with pytest.raises(BadKey, match=r"signing\.pem: this is not an unencrypted private key"):
        load_signing_key(path)
    rsa = generate_private_key(65537, 2048)
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(rsa.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    with pytest.raises(BadKey, match="not Ed25519"):
        load_signing_key(path)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "x.pub").write_bytes(b"garbage")
    with pytest.raises(BadKey, match=r"x\.pub: this is not a public key"):
        load_trusted_keys(tmp_path)
