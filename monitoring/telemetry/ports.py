"""Search for a free monitoring port."""

from __future__ import annotations

import socket
from collections.abc import Collection

_TRIED = 100


def free_port_from(host: str, port: int, others: Collection[int] = ()) -> int:
    """Return the first port from `port` on that is free and none of `others`; `port` if none of the next 100 is."""
    for candidate in range(port, min(port + _TRIED, 65_536)):
        if candidate not in others and _is_free(host, candidate):
            return candidate
    return port


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True
