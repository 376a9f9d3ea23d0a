"""Signing keys of releases: Ed25519 (RFC 8032), with several trusted keys, rotation and revocation.

A directory of keys:

    signing.pem            private key, mode 0600, only on the machine of the retrainer
    trusted/<key id>.pub   public keys whose releases are served
    revoked/<key id>.pub   public keys whose releases are refused, even if they are trusted

To rotate: add the new public key to `trusted/` everywhere, then change `signing.pem`. To revoke: move the file to
`revoked/`.

Errors: `BadKey`, whose message names the file and the fix.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tailrace.errors import TailraceError

SIGNING_KEY = "signing.pem"
TRUSTED = "trusted"
REVOKED = "revoked"
_REMEDY = "copy it again from the retrainer's trusted/ directory, or remove it"


class BadKey(TailraceError):
    """A signing key or a trusted key cannot be used; the message names the fix."""


class SigningKey:
    """Private key. `key_id`: the first 16 hex digits of the SHA-256 of the raw public key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key_id = _key_id(private.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a signing key made of a new random Ed25519 private key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read an unencrypted PKCS#8 PEM. Raises BadKey."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey(
                "this is not an unencrypted private key in PEM: make one with `openssl genpkey -algorithm ed25519`"
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise BadKey("this private key is not Ed25519: make one with `openssl genpkey -algorithm ed25519`")
        return cls(private)

    def pem(self) -> bytes:
        """The private key as PKCS#8 PEM. It is a secret."""
        encoding, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self._private.private_bytes(encoding, format_, serialization.NoEncryption())

    def public_pem(self) -> bytes:
        """The public key as PEM."""
        encoding, format_ = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(encoding, format_)

    def sign(self, message: bytes) -> bytes:
        """Sign a message; the signature has 64 bytes."""
        return self._private.sign(message)


class TrustedKeys:
    """Public keys whose releases are served. Key ids in `revoked` are refused even if their key is among them."""

    def __init__(self, pems: Iterable[bytes], revoked: Iterable[str] = ()) -> None:
        keys = map(_public_key, pems)
        self._keys = {_key_id(key): key for key in keys}
        self.revoked = frozenset(revoked)

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the keys that are trusted and not revoked."""
        return frozenset(self._keys) - self.revoked

    def objection(self, key_id: str, signature: bytes, message: bytes) -> str | None:
        """Verify a signature: None if a trusted key made it, else `revoked_key`, `unknown_key` or `bad_signature`."""
        if key_id in self.revoked:
            return "revoked_key"
        key = self._keys.get(key_id)
        if key is None:
            return "unknown_key"
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return "bad_signature"
        return None


def load_signing_key(path: Path) -> SigningKey:
    """Read a private key file. Raises BadKey if it is missing, readable by others, or not an Ed25519 key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            pem = file.read()
    except OSError as error:
        raise BadKey(
            f"cannot read the signing key {path} ({error.strerror}): make one with `tailrace keys new`"
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise BadKey(f"the signing key {path} has mode {mode:04o}, others may read it: run `chmod 600 {path}`")
    try:
        return SigningKey.from_pem(pem)
    except BadKey as error:
        raise BadKey(f"{path}: {error}") from None


def load_trusted_keys(directory: Path, revoked: Iterable[str] = ()) -> TrustedKeys:
    """Read `trusted/*.pub` and `revoked/*.pub` of a key directory; `revoked`: further revoked ids. Raises BadKey."""
    revoked_ids = [_key_id(_read_public(path)) for path in sorted((directory / REVOKED).glob("*.pub"))]
    pems = [_pem(_read_public(path)) for path in sorted((directory / TRUSTED).glob("*.pub"))]
    return TrustedKeys(pems, [*revoked_ids, *revoked])


def known_keys(directory: Path) -> TrustedKeys:
    """Read the keys of a key directory, see `load_trusted_keys`. Raises BadKey, also if it holds no key."""
    return some_keys(load_trusted_keys(directory), directory)


def some_keys(known: TrustedKeys, directory: Path) -> TrustedKeys:
    """Return `known` unchanged. Raises BadKey if it is empty.

    A directory in which every key is revoked is accepted, as a deliberate kill switch.
    """
    if not known.ids and not known.revoked:
        raise BadKey(
            f"there is no key in {directory / TRUSTED}, no release could be served: copy {TRUSTED}/ from "
            "the retrainer, or make keys with `tailrace keys new`"
        )
    return known


def read_trusted_keys(paths: Iterable[Path], revoked: Iterable[str] = ()) -> TrustedKeys:
    """Read trusted public keys from these files; a key whose id is in `revoked` is refused. Raises BadKey."""
    return TrustedKeys([_pem(_read_public(path)) for path in paths], revoked)


def create_keys(directory: Path) -> SigningKey:
    """Load the signing key of a directory; create it, and its public half in `trusted/`, if there is none.

    Safe for concurrent processes: the complete file is hard-linked to its name, which succeeds for one of them only.
    Raises BadKey.
    """
    try:
        return _created(directory)
    except OSError as error:
        raise BadKey(
            f"cannot write keys to {directory} ({error.strerror}): set keys.directory to a writable directory"
        ) from None


def _created(directory: Path) -> SigningKey:
    (directory / TRUSTED).mkdir(parents=True, exist_ok=True)
    path = directory / SIGNING_KEY
    if not path.exists():
        draft = _draft(path, SigningKey.generate().pem())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster: use its key
        finally:
            draft.unlink()
    key = load_signing_key(path)
    public = directory / TRUSTED / f"{key.key_id}.pub"
    if not public.exists() and not (directory / REVOKED / public.name).exists():
        _draft(public, key.public_pem()).replace(public)
    return key


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _read_public(path: Path) -> Ed25519PublicKey:
    try:
        return _public_key(path.read_bytes())
    except OSError as error:
        raise BadKey(f"cannot read the public key {path} ({error.strerror}): {_REMEDY}") from None
    except BadKey as error:
        raise BadKey(f"{path}: {error}") from None


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"this is not a public key in PEM: {_REMEDY}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"this public key is not Ed25519: {_REMEDY}")
    return key


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
