"""Free TCP ports for servers that tests start, stop and start again."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack
from pathlib import Path

LOWEST = 10_000
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")  # Linux: the ports of outgoing connections
OUTGOING_BEGIN = 32_768  # where there is no such file


def free_ports(count: int) -> range:
    """Return consecutive ports that no process listens on, below those that the system gives to outgoing connections.

    So no client can take the port of a server that is down until the server starts again.
    """
    while True:
        first = random.randrange(LOWEST, _outgoing_begin() - count)
        ports = range(first, first + count)
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("", port))
        except OSError:
            continue
        return ports


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]


def _outgoing_begin() -> int:
    """Return the first port of outgoing connections; LOWEST is far enough below it, or all high ports are used."""
    begin = int(OUTGOING.read_text().split()[0]) if OUTGOING.exists() else OUTGOING_BEGIN
    return begin if begin > LOWEST + 5_000 else 65_536
