"""Training by several processes at once, on one machine or more. Importing this imports torch.

    rank 0     the training process that speaks with the retrainer; it starts the others, unless torchrun has
    rank 1..   hear from rank 0 what it is told (Hello, then Jobs), prepare and train alike, and say only what fails

Every rank holds the whole window and knows all batches; of each batch it takes its share, and the gradients are
averaged (Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020), so that a run
comes to what one process comes to, but for rounding. Numbers on the CPU travel by gloo, those on CUDA by NCCL, one GPU
a rank.

Ranks that were started here meet on the loopback device, and each reads a pipe that ends when rank 0 does. Those of
torchrun meet where its environment variables say (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT): use that on
a network that you trust, for what goes over it is neither encrypted nor signed.
"""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import IO, cast

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from tailrace.retrain.training.distributed import ALONE, Group, broadcast
from tailrace.retrain.worker.protocol import Failure, Hello, Job, Message, receive, send
from tailrace.retrain.worker.torchrun import given_rank, given_ranks

_ADDRESS = "127.0.0.1"
_LOOPBACK = ("lo", "lo0")
_PORT = "TAILRACE_RANKS_PORT"  # tells a rank that was started here where to meet
_PATIENCE = timedelta(days=365)  # between runs a rank waits for the next; one that has died is noticed otherwise


class Crew:
    """Rank 0's hold on the other ranks. Started early, they are met when there is first something to tell them.

    Under torchrun they are its processes, and as many as it says. `on_failure` is called in a thread when one that was
    started here has failed or ended. Raises ValueError where there are GPUs, but fewer than ranks.
    """

    def __init__(self, hello: Hello, on_failure: Callable[[Failure], None]) -> None:
        self._hello, self._joined = hello, False
        self._group = ALONE if hello.ranks == 1 else Group(0, given_ranks() or hello.ranks)
        self._store: Store | None = None
        self._pipes: list[IO[bytes] | None] = []  # open as long as this process lives
        if hello.ranks > 1 and not given_ranks():
            self._start(on_failure)

    @property
    def ranks(self) -> int:
        """How many processes train."""
        return self._group.ranks

    def tell(self, job: Job) -> Group:
        """Tell all ranks; the group that they are. Waits for those that are not there yet."""
        if self._group.ranks > 1:
            if not self._joined:
                _join(self._store, self._group)
                _send(self._hello)
                self._joined = True
            _send(job)
        return self._group

    def _start(self, on_failure: Callable[[Failure], None]) -> None:
        if 0 < torch.cuda.device_count() < self.ranks:
            raise ValueError(f"{self.ranks} ranks need a GPU each, there are {torch.cuda.device_count()}: lower nproc")
        listening = socket.create_server((_ADDRESS, 0))  # else the store would listen on every address
        port, descriptor = listening.getsockname()[1], listening.detach()
        self._store = TCPStore(
            _ADDRESS, port, self.ranks, is_master=True, wait_for_workers=False, master_listen_fd=descriptor
        )
        for rank in range(1, self.ranks):
            process = _started(rank, self.ranks, port)
            self._pipes.append(process.stdin)
            threading.Thread(target=_watch, args=(rank, process, on_failure), daemon=True).start()


class Follower:
    """The place of a rank other than 0."""

    def __init__(self) -> None:
        self.group = Group(given_rank(), given_ranks())
        port = os.environ.get(_PORT)
        _join(None if port is None else TCPStore(_ADDRESS, int(port), self.group.ranks), self.group)

    def hear(self) -> Message:
        """The next thing that rank 0 tells; waits for it."""
        size = int(broadcast(torch.zeros((), dtype=torch.int64)))
        message = receive(io.BytesIO(broadcast(torch.zeros(size, dtype=torch.uint8)).numpy().tobytes()))
        assert message is not None
        return message


def _join(store: Store | None, group: Group) -> None:
    """Wait for all ranks, which meet at the store, or where torchrun's variables say."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if store is not None:
        _stay_on_loopback()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        "env://" if store is None else None,
        _PATIENCE,
        rank=group.rank,
        world_size=group.ranks,
        store=store,
    )


def _send(message: Message) -> None:
    buffer = io.BytesIO()
    send(buffer, message)
    broadcast(torch.tensor(buffer.tell()))
    broadcast(torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8))


def _stay_on_loopback() -> None:
    device = next((name for _, name in socket.if_nameindex() if name in _LOOPBACK), None)
    if device is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", device)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", device)


def _started(rank: int, ranks: int, port: int) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, _PORT: port}
    return subprocess.Popen(
        [sys.executable, "-m", "tailrace.retrain.worker.rank"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **{name: str(value) for name, value in place.items()}},
    )


def _watch(rank: int, process: subprocess.Popen[bytes], on_failure: Callable[[Failure], None]) -> None:
    """Wait for a rank's last word."""
    word = receive(cast("IO[bytes]", process.stdout))
    if isinstance(word, Failure):
        on_failure(Failure(word.reason, f"rank {rank}: {word.detail}"))
    else:
        on_failure(Failure("killed", f"rank {rank} of the training processes ended with code {process.wait()}"))
