"""Who may look at the console, and who may change something through it (pure).

Host      must be this machine: a page elsewhere whose name was made to point here (DNS rebinding) names itself
Origin    of what changes something must be the console itself
token     in a header of our own, which no form can send and no other site may: so there is nothing to forge
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

TOKEN = "X-Tailrace-Token"  # noqa: S105 (a header's name)
HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))
READ_ONLY = "this console only shows: set console.token_file to let it change something"


class Objection(NamedTuple):
    """Why a request is refused: an HTTP status, and words."""

    status: int
    text: str


def to_any(headers: Mapping[str, str]) -> Objection | None:
    """What speaks against answering a request at all; None: nothing. Headers without regard to case."""
    if _host(headers.get("Host", "")) not in HOSTS:
        return Objection(421, "the console answers to localhost, 127.0.0.1 and [::1] only")
    return None


def to_change(headers: Mapping[str, str], token: str | None) -> Objection | None:
    """What speaks against changing something; `token` None: nobody may."""
    if token is None:
        return Objection(403, READ_ONLY)
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
        return Objection(403, "the request came from another page than the console")
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return Objection(403, "the request came from another page than the console")
    if not hmac.compare_digest(headers.get(TOKEN, "").encode(errors="surrogateescape"), token.encode()):
        return Objection(401, f"{TOKEN} is missing or wrong")
    if headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        return Objection(415, "send application/json")
    return None


def _host(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
