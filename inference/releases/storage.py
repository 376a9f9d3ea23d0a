"""Storage of large payloads at an fsspec URL (s3://, gs://, file://, memory://, ...) instead of the log.

Credentials are configured in the backend's own files and environment variables, never in the URL.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from tailrace.errors import Exit, TailraceError
from tailrace.inference.releases.manifest import Manifest, Refused


class StoreUnreachable(TailraceError):
    """A payload cannot be written to or read from its URL; the message names it. Replaces the backend's own error."""

    exit_code = Exit.UNREACHABLE


class Store(NamedTuple):
    """Place for payloads of more than `above` bytes: below `url`."""

    url: str
    above: int


def check_store(url: str) -> None:
    """Check that the URL has a driver and can be reached. Raises StoreUnreachable."""
    try:
        files, path = _files(url)
        files.exists(path)
    except Exception as error:
        raise StoreUnreachable(f"cannot reach {url}: {error}; correct releases.store") from error


def location_of(url: str, version: int, payload: bytes) -> str:
    """The URL to which `store_payload` writes a payload."""
    return _location(url, version, hashlib.sha256(payload).hexdigest())


def store_payload(url: str, version: int, payload: bytes) -> str:
    """Write a payload below `url` and return its location. Raises StoreUnreachable."""
    location = location_of(url, version, payload)
    try:
        files, path = _files(location)
        files.pipe_file(path, payload)
    except Exception as error:
        raise StoreUnreachable(f"cannot write {location}: {error}") from error
    return location


def fetch_payload(manifest: Manifest, max_bytes: int) -> bytes:
    """Read the payload of a *verified* manifest. Raises StoreUnreachable, Refused (too_large)."""
    if manifest.location is None or manifest.size > max_bytes:
        raise Refused("too_large", f"{manifest.size} bytes at {manifest.location}, the limit is {max_bytes}")
    try:
        files, path = _files(manifest.location)
        with files.open(path, "rb") as file:
            return bytes(file.read(manifest.size + 1))
    except Exception as error:
        raise StoreUnreachable(f"cannot read {manifest.location}: {error}") from error


def remove_payload(url: str, manifest: Manifest) -> None:
    """Remove a payload that `store_payload` wrote below `url`. Raises StoreUnreachable.

    Any other location is left unchanged, because a manifest may name any URL.
    """
    if manifest.location != _location(url, manifest.version, manifest.sha256):
        return
    try:
        files, path = _files(manifest.location)
        files.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as error:
        raise StoreUnreachable(f"cannot remove {manifest.location}: {error}") from error


def _location(url: str, version: int, sha256: str) -> str:
    return f"{url.rstrip('/')}/{version:08d}-{sha256[:12]}.safetensors"


def _files(location: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs
    from fsspec.utils import get_protocol

    local = {"auto_mkdir": True} if get_protocol(location) == "file" else {}
    files, path = url_to_fs(location, **local)
    return files, path
