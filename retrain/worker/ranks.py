"""Training by several processes at once, on one machine or more. Importing this imports torch.

    rank 0     the training process that is connected to the retrainer; it starts the others, unless torchrun has
    rank 1..   receive the messages of rank 0 (Hello, then Jobs), train with it, and report only failures

Every rank holds the whole window and knows all batches. It takes its share of each batch, and gradients are averaged
(Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020), so that a run gives the
result of one process up to rounding. CPU tensors travel by gloo, CUDA tensors by NCCL, with one GPU per rank.

Ranks that were started here connect over the loopback device, and each reads a pipe that closes when rank 0 ends. Ranks
of torchrun connect as its environment variables say (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Use
torchrun only on a trusted network: the traffic is neither encrypted nor signed.
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
_PORT = "TAILRACE_RANKS_PORT"  # tells a rank that was started here where the store listens
_PATIENCE = timedelta(days=365)  # a rank waits between runs; the end of a process is noticed by its pipe


class RankLeader:
    """Rank 0: starts the other ranks early and connects to them when it first distributes a job.

    Under torchrun the other ranks are processes of torchrun, which sets their number. `on_failure` is called in a
    thread when a rank that was started here has failed or ended. Raises ValueError if there are GPUs, but fewer than
    ranks.
    """

    def __init__(self, hello: Hello, on_failure: Callable[[Failure], None]) -> None:
        self._hello, self._joined = hello, False
        self._group = ALONE if hello.ranks == 1 else Group(0, given_ranks() or hello.ranks)
        self._store: Store | None = None
        self._processes: list[subprocess.Popen[bytes]] = []  # their input pipes stay open while this process lives
        if hello.ranks > 1 and not given_ranks():
            self._start(on_failure)

    @property
    def ranks(self) -> int:
        """Number of processes that train."""
        return self._group.ranks

    def distribute(self, job: Job) -> Group:
        """Send a job to all ranks, waiting for those that are still starting; returns their group."""
        if self._group.ranks > 1:
            if not self._joined:
                _join(self._store, self._group)
                _broadcast_message(self._hello)
                self._joined = True
            _broadcast_message(job)
        return self._group

    def _start(self, on_failure: Callable[[Failure], None]) -> None:
        if 0 < torch.cuda.device_count() < self.ranks:
            raise ValueError(f"{self.ranks} ranks need a GPU each, there are {torch.cuda.device_count()}: lower nproc")
        listening = socket.create_server((_ADDRESS, 0))  # without it the store would listen on every address
        port, descriptor = listening.getsockname()[1], listening.detach()
        self._store = TCPStore(
            _ADDRESS, port, self.ranks, is_master=True, wait_for_workers=False, master_listen_fd=descriptor
        )
        try:
            for rank in range(1, self.ranks):
                process = _started(rank, self.ranks, port)
                self._processes.append(process)
                threading.Thread(target=_watch, args=(rank, process, on_failure), daemon=True).start()
        except BaseException:
            for process in self._processes:
                process.kill()
                process.wait()
            raise


class RankMember:
    """A rank other than 0, connected to rank 0."""

    def __init__(self) -> None:
        self.group = Group(given_rank(), given_ranks())
        port = os.environ.get(_PORT)
        _join(None if port is None else TCPStore(_ADDRESS, int(port), self.group.ranks), self.group)

    def receive(self) -> Message:
        """Wait for the next message of rank 0."""
        size = int(broadcast(torch.zeros((), dtype=torch.int64)))
        message = receive(io.BytesIO(broadcast(torch.zeros(size, dtype=torch.uint8)).numpy().tobytes()))
        assert message is not None
        return message


def _join(store: Store | None, group: Group) -> None:
    """Connect all ranks, by the store or as the variables of torchrun say."""
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


def _broadcast_message(message: Message) -> None:
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
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, _PORT: port}
    return subprocess.Popen(
        [sys.executable, "-m", "tailrace.retrain.worker.rank"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
    )


def _watch(rank: int, process: subprocess.Popen[bytes], on_failure: Callable[[Failure], None]) -> None:
    """Wait for a rank to fail or end."""
    message = receive(cast("IO[bytes]", process.stdout))
    if isinstance(message, Failure):
        on_failure(Failure(message.reason, f"rank {rank}: {message.detail}"))
    else:
        on_failure(Failure("killed", f"rank {rank} of the training processes ended with code {process.wait()}"))
