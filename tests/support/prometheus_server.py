"""A real Prometheus on a free port, with the shipped configuration."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.waiting import until

from tailrace.testing.ports import free_port

ROOT = Path(__file__).parents[2]
NO_PROMETHEUS = "no Prometheus"
PROMETHEUS = "install prometheus and promtool (Debian, Ubuntu: apt-get install prometheus)"
SHIPPED = ROOT / "monitoring" / "prometheus"


def tool(name: str) -> str:
    """Return the path of `prometheus` or `promtool`; skip the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{NO_PROMETHEUS}: {PROMETHEUS}")
    return path


def promtool(*arguments: str | Path, given: str | None = None) -> None:
    """Run promtool and assert that it finds no fault."""
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class PrometheusClient:
    """Client of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[float]:
        """Return the current finite values of an expression."""
        result = self.get("/api/v1/query", query=expression)["result"]
        values = [float(series["value"][1]) for series in result]
        return [value for value in values if math.isfinite(value)]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health."""
        return [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a response of the HTTP API; fail the test for an error."""
        try:
            with urllib.request.urlopen(
                f"{self._url}{path}?{urllib.parse.urlencode(parameters)}", timeout=30
            ) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def ready(self) -> bool:
        """Return True if the server answers and is ready."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running(directory: Path, ports: Mapping[str, int], interval: str = "1s") -> Iterator[PrometheusClient]:
    """Run Prometheus with the shipped configuration, except the ports of the roles (by component) and intervals."""
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": "1s"}
    for target in config["scrape_configs"][0]["static_configs"]:
        target["targets"] = [f"127.0.0.1:{ports[target['labels']['component']]}"]
    (directory / "rules").mkdir(parents=True)
    for path in (SHIPPED / "rules").iterdir():
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            group.pop("interval", None)
        (directory / "rules" / path.name).write_text(yaml.safe_dump(rules))
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        tool("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            prometheus = PrometheusClient(port)

            def alive() -> None:
                assert process.poll() is None, (directory / "log").read_text()[-2000:]

            until(prometheus.ready, check=alive)
            yield prometheus
        finally:
            process.kill()
