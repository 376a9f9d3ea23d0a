"""No dependency holds River or Faust back: with all extras at once pip's resolver chooses their newest versions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
WATCHED = ("river", "faust-streaming")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


def pip(*arguments: str) -> str | None:
    """Run pip; return its output, or None if it failed."""
    done = subprocess.run([*PIP, *arguments], capture_output=True, text=True, check=False, timeout=240)
    return done.stdout if done.returncode == 0 else None


@pytest.fixture(scope="module")
def newest() -> dict[str, str]:
    """The newest version of each watched package in the index."""
    found = {}
    for package in WATCHED:
        versions = pip("index", "versions", package)
        match = re.search(r"\(([^)]+)\)", versions or "")
        if match is None:
            pytest.skip(f"no package index answers for {package}: whether dependencies hold it back was not checked")
        found[package] = match[1]
    return found


@pytest.mark.nightly
def test_newest_versions_fit(newest: dict[str, str]) -> None:
    """An upgrade of River and Faust together with all extras gives their newest versions.

    Installed packages stay if they fit; torch is pinned.
    """
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    wanted = [*WATCHED, *PROJECT["dependencies"], *extras, f"torch=={version('torch').partition('+')[0]}"]
    upgrade = ("--upgrade", "--upgrade-strategy", "only-if-needed")
    report = pip("install", "--dry-run", "--quiet", "--report", "-", *upgrade, *wanted)
    assert report is not None
    changes = {item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report)["install"]}
    assert {package: changes.get(package, version(package)) for package in WATCHED} == newest
    assert "torch" not in changes
