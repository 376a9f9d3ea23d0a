"""Free ports for servers that tests start."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def free_ports(count: int) -> range:
    """Return consecutive ports that no process listens on."""
    while True:
        ports = range(first := free_port(), first + count)
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except (OSError, OverflowError):  # one of them is taken, or is above the last port
            continue
        return ports
