"""The follower where the log is slow or full of what somebody else wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.releases import FEATURES, KEY, ROWS, TASK, TOPIC, Ends, champion, release
from support.waiting import PATIENCE_S, until
from torch import Tensor, nn

from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import Golden, Limits, pack, release_records, serialise
from tailrace.inference.releases.signing import TrustedKeys
from tailrace.inference.releases.weights import load_state
from tailrace.inference.serving.follower import Follower
from tailrace.inference.serving.loader import Loader, base_rate_serving
from tailrace.streams.log.base import Batch, Log
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog


class Hesitant(SqliteLog):
    """Its readers give one record at a time, and nothing before each."""

    def reader(self, *arguments: Any, **options: Any) -> Any:
        """See `tailrace.streams.log.base.Log`."""
        return _Hesitant(super().reader(*arguments, **options))


class _Hesitant:
    def __init__(self, real: Any) -> None:
        self._real, self._gives = real, True

    def read(self, max_records: int, timeout: float) -> Batch:
        self._gives = not self._gives
        return self._real.read(1, timeout) if self._gives else Batch([])

    def close(self) -> None:
        self._real.close()


@pytest.fixture
def hesitant(tmp_path: Path) -> Iterator[Hesitant]:
    log = Hesitant(tmp_path / "log.db")
    yield log
    log.close()


@contextmanager
def following(log: Log, limits: Limits | None = None) -> Iterator[tuple[Follower, list[int]]]:
    """A follower at work, and the versions that it offers; those that it refuses are negative."""
    offered: list[int] = []
    stop = threading.Event()
    follower = Follower(
        log,
        TOPIC,
        "champion",
        Loader(ModelSpec(FEATURES, TASK), trusted=TrustedKeys([KEY.public_pem()]), limits=limits),
        base_rate_serving(TASK, None),
        offer=lambda serving, seconds: offered.append(serving.release),
        refuse=lambda version, why: offered.append(-version),
    )
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        yield follower, offered
    finally:
        stop.set()
        thread.join()


def test_history_is_not_replayed_by_a_slow_log(ends: Ends, hesitant: Hesitant) -> None:
    """A read that gives nothing is not the end of the topic: only the last alias is acted upon."""
    ends.publish(release(1), champion(1), release(2), champion(2))
    with following(hesitant) as (_, offered):
        until(lambda: bool(offered))
        ends.publish(release(3), champion(3))
        until(lambda: 3 in offered)
    assert offered == [2, 3]


def test_a_flood_of_forged_chunks_costs_no_more_than_the_limit(ends: Ends) -> None:
    """Chunks of high versions are not kept; the wanted ones that they pushed out of memory are read again."""
    good = release(1)
    size = len(good.payload)
    flood = [Out(TOPIC, b"release/%012d/chunk/0" % (10**11 + n), bytes(size)) for n in range(20)]
    ends.publish(*release_records(good, TOPIC)[:-1], flood, release_records(good, TOPIC)[-1], flood, champion(1))
    with following(ends.log, Limits(payload_bytes=size)) as (follower, offered):
        until(lambda: bool(offered))
        ends.publish(flood, champion(0))
        until(lambda: len(offered) == 2)
    assert offered == [1, 0]
    assert len(follower._registry.held) <= 1


class Touchy(nn.Module):
    """Knows no row but those without a number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        if not numbers.isnan().all():
            raise KeyError("this row")
        return self.weight.expand(len(numbers))


def test_a_module_that_cannot_score_its_golden_batch_is_refused(ends: Ends) -> None:
    """Whatever it raises, it is refused once, and not tried again and again."""
    state = serialise(Touchy().state_dict())
    assert load_state(state).keys() == {"weight"}
    golden = Golden.of(ROWS, torch.full((2, 1), 0.5).numpy())
    with ends.live(ModelSpec(FEATURES, TASK, Touchy)) as live:
        ends.publish(pack(release(1, golden=golden).manifest, state, KEY), champion(1))
        until(lambda: bool(ends.refusals))
        ends.publish(champion(0))
        live.wait_for(0, PATIENCE_S)
    assert ends.refusals == [(1, "golden_mismatch")]
