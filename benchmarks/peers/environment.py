"""Virtual environments for peers whose requirements conflict with Tailrace's.

Each environment holds the peer's packages and, with lower precedence, those of the current environment. It is created
once, in `.venv-peers/`, and reused.
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
    """A peer that cannot be installed here; the message gives the reason."""


def python_with(peer: str) -> Path:
    """Return the interpreter of the peer's environment, in which Tailrace can be imported too. Raise NotInstallable."""
    base = ROOT / ".venv-peers"
    base.mkdir(exist_ok=True)
    home = base / f"{peer}-{sys.version_info.major}.{sys.version_info.minor}"
    marker = home / ".made"
    requirements = PEERS[peer]
    with (base / f"{peer}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in parallel
        if not marker.exists() or marker.read_text().split() != requirements:
            shutil.rmtree(home, ignore_errors=True)
            _make(home, requirements)
            marker.write_text("\n".join(requirements))
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
    path_file = home / "lib" / version / "site-packages" / "zz_below.pth"  # read last: the peer's packages win
    path_file.write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise NotInstallable(f"{' '.join(command)}: {' '.join(lines[-3:])}")
