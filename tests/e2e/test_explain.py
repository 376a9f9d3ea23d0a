"""`tailrace explain` on what the roles themselves have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.world import ALL, EVENTS, START, World, x

from tailrace.cli.main import run


def explained(world: World, id: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Output of the command as JSON."""
    capsys.readouterr()
    code = run(["explain", id, "-p", world.settings.pipeline, "--log", world.settings.log.url, "--json"])
    assert code == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_an_event_is_followed_through_the_whole_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the event that the base rate scored, by the label that counts, to the release it taught; and from there to
    an event that this release, or a later one, scored."""
    world = World(tmp_path, "plain")
    try:
        world.start(ALL)
        world.send(*((n, x(n) > 0, 60.0) for n in range(EVENTS)), (5, x(5) <= 0, 90.0))
        world.read("rows.examples", EVENTS)
        n, scores = world.first_scored_since(world.release().version)
        old, new = explained(world, "5", capsys), explained(world, str(n), capsys)
    finally:
        world.close()
    assert old["event"]["value"]["x"] == x(5)
    assert (old["prediction"]["event_time"], old["prediction"]["release"]) == (START + 300, 0)
    assert [(label["label"], label["counts"]) for label in old["labels"]] == [(x(5) > 0, True), (x(5) <= 0, False)]
    assert old["example"]["label"] is (x(5) > 0)
    assert (old["taught"]["version"] >= 1, old["taught"]["first"]) == (True, True)
    assert new["prediction"]["scores"] == scores
    assert new["release"]["version"] == new["prediction"]["release"] >= 1
    assert new["release"]["examples"] > 0
    assert (new["labels"], new["example"], new["taught"]) == ([], None, None)
