"""Refuse to build from a checkout whose symbolic links are missing: the wheel would lack four packages."""

from pathlib import Path

from setuptools import setup

LINKED = ("streams", "inference", "retrain", "monitoring")

for name in LINKED:
    if not (Path(__file__).parent / "tailrace" / name / "__init__.py").is_file():
        raise SystemExit(
            f"tailrace/{name} is not a symbolic link to {name}/: this checkout was made without symbolic links. "
            "Clone it again with `git clone -c core.symlinks=true` (on Windows: enable Developer Mode first)."
        )

setup()
