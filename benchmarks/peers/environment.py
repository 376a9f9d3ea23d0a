"""Environments of their own for packages that hold others back: ours lies below, theirs on top, nothing is shared back.

An environment is made once, in `.venv-peers/`, and found there again.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = {"quixstreams": ["quixstreams==3.28.1"], "bytewax": ["bytewax[kafka]==0.21.1"]}


class NotInstallable(Exception):
    """A peer cannot be installed here; the message says why."""


def python_with(peer: str) -> Path:
    """The interpreter of the environment with that peer, in which everything of ours can be imported too. Raises
    NotInstallable."""
    base = ROOT / ".venv-peers"
    base.mkdir(exist_ok=True)
    home = base / f"{peer}-{sys.version_info.major}.{sys.version_info.minor}"
    made = home / ".made"
    requirements = PEERS[peer]
    with (base / f"{peer}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not made.exists() or made.read_text().split() != requirements:
            shutil.rmtree(home, ignore_errors=True)
            _make(home, requirements)
            made.write_text("\n".join(requirements))
    return home / "bin" / "python"


def _make(home: Path, requirements: list[str]) -> None:
    try:
        _run([sys.executable, "-m", "venv", str(home)])
        _run(
            [
                str(home / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                *requirements,
            ]
        )
    except NotInstallable:
        shutil.rmtree(home, ignore_errors=True)
        raise
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    below = home / "lib" / version / "site-packages" / "zz_below.pth"  # read last, so that theirs win
    below.write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise NotInstallable(f"{' '.join(command)}: {' '.join(lines[-3:])}")
