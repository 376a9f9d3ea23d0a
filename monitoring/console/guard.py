"""Access rules of the console: which requests are answered, and which may change something (pure).

Host      must name this machine. A page of another site whose name was made to point here (DNS rebinding) sends its
          own name and is refused.
Origin    of a request that changes something must be the console's own page.
token     travels in a header of our own. No HTML form can send it, and the browser lets no other site send it, so a
          request cannot be forged (CSRF).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

TOKEN = "X-Tailrace-Token"  # noqa: S105 (the name of a header)
HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))
READ_ONLY = "this console is read-only: set console.token_file to allow changes"


class AccessRefusal(NamedTuple):
    """An HTTP status and its explanation."""

    status: int
    text: str


def refuse_request(headers: Mapping[str, str]) -> AccessRefusal | None:
    """Return the refusal of a request that only reads; None if it is allowed. `headers`: a case-insensitive mapping."""
    if _hostname(headers.get("Host", "")) not in HOSTS:
        return AccessRefusal(421, "the console answers to localhost, 127.0.0.1 and [::1] only")
    return None


def refuse_change(headers: Mapping[str, str], token: str | None) -> AccessRefusal | None:
    """Return the refusal of a request that changes state; None if it is allowed. Without a `token` all are refused."""
    if token is None:
        return AccessRefusal(403, READ_ONLY)
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("Host"):
        return AccessRefusal(403, "the request came from another page than the console")
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return AccessRefusal(403, "the request came from another page than the console")
    if not hmac.compare_digest(headers.get(TOKEN, "").encode(errors="surrogateescape"), token.encode()):
        return AccessRefusal(401, f"{TOKEN} is missing or wrong")
    if headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        return AccessRefusal(415, "send application/json")
    return None


def _hostname(host: str) -> str | None:
    """The name in a Host header, without its port; None if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
