"""The live model against a real log: a publisher at one end, a follower at the other."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import structlog
from support.releases import FEATURES, KEY, ROWS, TASK, TOPIC, Ends, Row, champion, release
from support.waiting import PATIENCE_S, until
from torch import Tensor, nn

from tailrace.declaration.task import Kind, Task
from tailrace.inference.models.encoding import Inputs
from tailrace.inference.models.spec import ModelSpec
from tailrace.inference.releases.manifest import (
    Golden,
    Refused,
    Release,
    pack,
    release_records,
    serialise,
    tombstones,
)
from tailrace.inference.releases.signing import SigningKey, TrustedKeys
from tailrace.inference.releases.storage import store_payload
from tailrace.inference.serving.live_model import LiveModel
from tailrace.inference.serving.loader import Loader, Serving
from tailrace.streams.log.records import Out
from tailrace.streams.log.sqlite.log import SqliteLog


def test_release_0_serves_until_the_first_release(ends: Ends) -> None:
    """A pipeline is live from its first second: every row gets the base rate, then the first release takes over."""
    with ends.live() as live:
        assert live.current().release == 0
        assert live.current().score(ROWS).tolist() == [[0.25], [0.25]]
        one = release(1)
        ends.publish(one, champion(1))
        live.wait_for(1, PATIENCE_S)
        assert live.current().release == 1
        np.testing.assert_allclose(one.manifest.golden.scores, live.current().score(ROWS), rtol=1e-5)
        np.testing.assert_allclose(
            one.manifest.golden.scores[:1], live.predict([Row(id="c", x=1.0, carrier="UA")]).scores, rtol=1e-4
        )
    (old, new, pause_s, load_s) = ends.swaps[0]
    assert (old, new, ends.refusals) == (0, 1, [])
    assert 0 <= pause_s < PATIENCE_S > load_s > 0


def test_the_alias_decides_not_the_newest_version(ends: Ends) -> None:
    """A published release serves when the alias names it; history at the start is not replayed."""
    ends.publish(release(1), champion(1), release(2), champion(2), release(3))
    with ends.live() as live:
        live.wait_for(2, PATIENCE_S)
        assert live.current().release == 2
    assert [(old, new) for old, new, _, _ in ends.swaps] == [(0, 2)]


def test_rolling_back_needs_no_new_release(ends: Ends) -> None:
    """The alias may go back, to versions whose chunks were forgotten long ago, and to release 0."""
    releases = [release(version) for version in range(1, 6)]
    with ends.live() as live:
        for version in (1, 2, 3, 4, 5):
            ends.publish(releases[version - 1], champion(version))
            live.wait_for(version, PATIENCE_S)
            live.current()
        for version in (2, 0, 1):
            ends.publish(champion(version))
            live.wait_for(version, PATIENCE_S)
            assert live.current().release == version
        np.testing.assert_allclose(releases[0].manifest.golden.scores, live.current().score(ROWS), rtol=1e-5)
    assert [new for _, new, _, _ in ends.swaps] == [1, 2, 3, 4, 5, 2, 0, 1]


def test_a_batch_is_scored_by_one_release(ends: Ends) -> None:
    """What `current` returned goes on scoring as it did, whatever is offered meanwhile."""
    with ends.live() as live:
        ends.publish(release(1), champion(1))
        live.wait_for(1, PATIENCE_S)
        serving = live.current()
        before = serving.score(ROWS)
        ends.publish(release(2), champion(2))
        live.wait_for(2, PATIENCE_S)
        assert serving.score(ROWS).tolist() == before.tolist() != live.current().score(ROWS).tolist()


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(1, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        out: Tensor = self.other(numbers)
        return out


def tampered(good: Release) -> list[Out]:
    chunk, manifest = release_records(good, TOPIC)
    return [Out(TOPIC, chunk.key, bytes(reversed(chunk.value or b""))), manifest]


def moved(good: Release) -> list[Out]:
    return [
        Out(TOPIC, (out.key or b"").replace(b"00000008", b"00000009"), out.value)
        for out in release_records(good, TOPIC)
    ]


def not_finite(good: Release) -> Release:
    state = ModelSpec(FEATURES, TASK).build().state_dict()
    state["linear.bias"][0] = float("nan")
    return pack(good.manifest, serialise(state), KEY)


BAD: dict[str, Callable[[], Release | list[Out]]] = {
    "digest_mismatch": lambda: tampered(release(9)),
    "unknown_key": lambda: pack(release(9).manifest, release(9).payload, SigningKey.generate()),
    "wrong_features": lambda: release(9, features="0" * 64),
    "wrong_task": lambda: release(9, task=Task(Kind.REGRESSION)),
    "wrong_model": lambda: pack(release(9).manifest, serialise(Wrong().state_dict()), KEY),
    "golden_mismatch": lambda: release(9, golden=Golden.of(ROWS, np.array([[0.5], [0.5]], np.float32))),
    "non_finite": lambda: not_finite(release(9)),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_release_is_refused_and_the_old_model_serves_on(ends: Ends, reason: str) -> None:
    """Whatever is wrong, the reason is told, nothing changes, and the next good release is taken."""
    with ends.live() as live:
        ends.publish(release(1), champion(1))
        live.wait_for(1, PATIENCE_S)
        ends.publish(BAD[reason](), champion(9))
        with pytest.raises(Refused, match=reason):
            live.wait_for(9, PATIENCE_S)
        assert live.current().release == 1
        ends.publish(release(10), champion(10))
        live.wait_for(10, PATIENCE_S)
        assert live.current().release == 10
    assert ends.refusals == [(9, reason)]


def test_a_release_replayed_under_another_version_is_refused(ends: Ends) -> None:
    """A genuine manifest at another version's keys is no release: what the alias names does not come."""
    with ends.live() as live:
        ends.publish(moved(release(8)), champion(9))
        until(lambda: ends.refusals == [(9, "incomplete")])
        assert live.current().release == 0


def test_an_incomplete_release_serves_when_the_rest_comes(ends: Ends) -> None:
    """An alias that is ahead of its release is reported and then followed; nothing is torn."""
    good = release(1)
    chunk, manifest = release_records(good, TOPIC)
    with ends.live() as live:
        ends.publish(manifest, champion(1))
        until(lambda: ends.refusals == [(1, "incomplete")])
        assert live.current().release == 0
        ends.publish(chunk)
        live.wait_for(1, PATIENCE_S)
        assert live.current().release == 1


def test_a_refused_version_that_is_put_right_is_taken(ends: Ends) -> None:
    """Publishing the version again and naming it again gives it another chance."""
    with ends.live() as live:
        ends.publish(tampered(release(9)), champion(9))
        until(lambda: ends.refusals == [(9, "digest_mismatch")])
        ends.publish(release(9), champion(9))
        until(lambda: live.current().release == 9)
        live.wait_for(9, PATIENCE_S)


def test_garbage_and_tombstones_in_the_topic_are_harmless(ends: Ends) -> None:
    """Nonsense records and removed releases are passed over."""
    old = release(1)
    ends.publish(
        old, tombstones(1, range(old.manifest.chunks), TOPIC), Out(TOPIC, b"nonsense", b"\xff"), Out(TOPIC, None, None)
    )
    ends.publish(release(2), champion(2))
    with ends.live() as live:
        live.wait_for(2, PATIENCE_S)
        assert live.current().release == 2
    assert ends.refusals == []


def test_a_payload_at_a_url_is_fetched_and_verified(ends: Ends, tmp_path: Path) -> None:
    """A release too large for the log serves like any other."""
    good = release(4)
    location = store_payload(f"file://{tmp_path}/models", 4, good.payload)
    with ends.live() as live:
        ends.publish(pack(good.manifest, good.payload, KEY, location), champion(4))
        live.wait_for(4, PATIENCE_S)
        np.testing.assert_allclose(good.manifest.golden.scores, live.current().score(ROWS), rtol=1e-5)


def test_an_unreachable_payload_is_tried_again(ends: Ends, tmp_path: Path) -> None:
    """While the store is away the old model serves; when it is back the release is taken."""
    good = release(4)
    location = store_payload(f"file://{tmp_path}/models", 4, good.payload)
    stored = Path(location.removeprefix("file://"))
    away = stored.rename(tmp_path / "away")
    with structlog.testing.capture_logs() as logs, ends.live() as live:
        ends.publish(pack(good.manifest, good.payload, KEY, location), champion(4))
        until(lambda: any(entry["event"] == "releases unreachable" for entry in logs))
        assert live.current().release == 0
        away.rename(stored)
        live.wait_for(4, PATIENCE_S)


def test_a_topic_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    """Errors of the log do not end the follower."""
    log = SqliteLog(tmp_path / "log.db")
    loader = Loader(ModelSpec(FEATURES, TASK), trusted=TrustedKeys([KEY.public_pem()]))
    with (
        structlog.testing.capture_logs() as logs,
        LiveModel(log, TOPIC, loader) as live,
    ):
        until(lambda: any(entry["event"] == "releases unreachable" for entry in logs))
        assert live.current().score(ROWS).tolist() == [[0.5], [0.5]]
        ends = Ends(tmp_path / "log.db")
        ends.publish(release(1), champion(1))
        live.wait_for(1, PATIENCE_S)
        ends.close()
    log.close()


def test_waiting_in_vain_ends(ends: Ends) -> None:
    """A version that never comes is a TimeoutError."""
    with ends.live() as live, pytest.raises(TimeoutError, match="release 7 was not loaded within"):
        live.wait_for(7, 0.05)


def test_hundreds_of_swaps_under_load_leave_nothing_behind(ends: Ends) -> None:
    """200 releases are swapped in while a thread scores: each batch is whole, and no old module stays alive."""
    bytes_of = [release(version) for version in (1, 2)]
    payloads = [good.payload for good in bytes_of]
    scored: list[int] = []
    stop = threading.Event()

    def score(live: LiveModel) -> None:
        while not stop.is_set():
            serving: Serving = live.current()
            assert serving.score(Inputs.concat([ROWS] * 64)).shape == (128, 1)
            if scored[-1:] != [serving.release]:
                scored.append(serving.release)

    with ends.live() as live:
        thread = threading.Thread(target=score, args=(live,))
        thread.start()
        try:
            for version in range(1, 201):
                manifest = msgspec.structs.replace(bytes_of[version % 2].manifest, version=version)
                ends.publish(pack(manifest, payloads[version % 2], KEY), champion(version))
                live.wait_for(version, PATIENCE_S)
                until(lambda version=version: scored[-1:] == [version])  # type: ignore[misc]
        finally:
            stop.set()
            thread.join()
        gc.collect()
        alive = sum(type(thing).__name__ == "TabularNetwork" for thing in gc.get_objects())
    assert scored[-200:] == list(range(1, 201))
    assert len(ends.swaps) == 200
    assert alive <= 3
