"""The files around the code are consistent: YAML parses, versions are pinned, named paths exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tailrace

ROOT = Path(__file__).parents[2]
YAML = [ROOT / "docker-compose.yml", *(ROOT / "monitoring").rglob("*.yml")]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pins}


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    """Every YAML file is one mapping."""
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_compose_names_existing_roles_and_files() -> None:
    """The services are the whole loop: their commands are roles, and the files that they mount exist."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"kafka", "worker", "joiner", "retrainer", "prometheus", "grafana"}
    for role in ("worker", "joiner", "retrainer"):
        assert services[role]["command"] == role
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    named = [mount for mount in mounts if mount.startswith("./")]
    assert len(named) == 3
    assert all((ROOT / mount).exists() for mount in named)


def test_compose_sets_known_settings() -> None:
    """Each setting in the environment of a role is known, and the roles find the broker."""
    from tailrace.app.settings import load_settings

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    settings = load_settings(environment=services["worker"]["environment"]).settings
    assert settings.log.url == "kafka://kafka:19092"


def test_every_dependency_is_pinned() -> None:
    """constraints.txt pins each declared dependency, extras included, to a version in the declared range."""
    declared = [
        *project()["dependencies"],
        *(r for extra in project()["optional-dependencies"].values() for r in extra),
    ]
    pins = constraints()
    for requirement in map(Requirement, declared):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_one_version() -> None:
    """The package and its metadata have the same version."""
    assert tailrace.__version__ == project()["version"]


def test_dockerfile_copies_every_package() -> None:
    """The image is built from all five folders and from the files that the build reads."""
    text = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"COPY (\w+) \./\1", text))
    assert copied == {"streams", "inference", "retrain", "monitoring", "tailrace"}
    assert re.search(r"^COPY pyproject.toml setup.py README.md LICENSE \./$", text, re.MULTILINE)
