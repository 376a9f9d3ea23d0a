"""Every file in examples/ works; those for Kafka run as processes against a real broker."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from support.environment import unmeasured
from support.waiting import until

from benchmarks.peers.environment import NotInstallable, python_with
from tailrace.app.pipeline_file import load_pipeline
from tailrace.streams.log.base import Topic
from tailrace.streams.log.browse import scan
from tailrace.testing import Harness
from tailrace.testing.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
PAYMENTS: list[dict[str, Any]] = [
    {"id": f"p{n}", "at": 1_767_225_600 + n, "country": country, "amount": 10.0 * n}
    for n, country in enumerate(("NL", "PT", "US") * 20)
]
PATIENCE_S = 120.0


class Place:
    """A copy of the examples under a unique pipeline name, with an untrained release and some payments on the log."""

    def __init__(self, directory: Path, url: str | None) -> None:
        shutil.copytree(EXAMPLES, directory, dirs_exist_ok=True)
        self.name = f"payments-{uuid.uuid4().hex[:8]}"
        for file in ("pipeline.py", "faust_app.py"):
            path = directory / file
            path.write_text(path.read_text().replace('"payments', f'"{self.name}'))
        self.directory = directory
        self.kit = Harness(load_pipeline(str(directory / "pipeline.py")), url)

    def __enter__(self) -> Place:
        self.kit.__enter__()
        keys = self.directory / ".tailrace" / "keys"
        shutil.copytree(self.kit.settings.keys.directory / "trusted", keys / "trusted")
        self.kit.publish_untrained()
        self.environment = {**unmeasured(), "LOG": self.kit.settings.log.url}
        self.kit.send(*PAYMENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self.kit.__exit__(None, None, None)

    def expected(self) -> list[float]:
        """Return the scores that the release gives the payments."""
        with self.kit.follow() as live:
            scores: list[float] = live.predict(PAYMENTS).scores[:, 0].tolist()
        return scores

    def values(self, topic: str) -> list[dict[str, Any]]:
        """Return the values of a topic; none if it does not exist yet."""
        return [json.loads(r.value or b"") for r in scan(self.kit.log, topic)] if self.kit.log.partitions(topic) else []

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process in the directory; end it with the block."""
        log = self.directory / "process.log"
        with log.open("ab") as out:
            process = subprocess.Popen(command, cwd=self.directory, env=self.environment, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def check(self, process: subprocess.Popen[bytes]) -> None:
        assert process.poll() is None, (self.directory / "process.log").read_text()[-4_000:]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path, None) as place:
        yield place


@pytest.fixture
def on_kafka(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Place]:
    with Place(tmp_path, f"kafka://{kafka_bootstrap}") as place:
        yield place


def peer(name: str) -> str:
    """Return the interpreter of an environment that has this package."""
    try:
        return str(python_with(name))
    except NotInstallable as why:
        pytest.skip(f"THE {name.upper()} EXAMPLE WAS NOT TRIED, {name} cannot be installed here: {why}")


def test_fastapi(embedded: Place) -> None:
    """The service scores payments by the current release, then by the next; an invalid payment is answered by 422."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port))

    def score(payments: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        """Return the status (0 if the service does not answer) and the answer."""
        body, headers = json.dumps(payments).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/score", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except urllib.error.URLError:
            return 0, {}

    with embedded.running(*command) as process:
        until(lambda: score([])[0], PATIENCE_S, lambda: embedded.check(process))
        scores = pytest.approx(embedded.expected(), rel=1e-5)
        assert score(PAYMENTS) == (200, {"release": 1, "scores": scores})
        embedded.kit.publish_untrained(seed=1)
        until(lambda: score(PAYMENTS)[1]["release"] == 2, PATIENCE_S, lambda: embedded.check(process))
        status, told = score([{"id": "p"}])
        assert (status, "missing required field" in told["detail"]) == (422, True)


def test_notebook(embedded: Place) -> None:
    """The notebook is valid, and its cells print the release and its scores."""
    notebook = nbformat.read(embedded.directory / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)],
        cwd=embedded.directory,
        env=embedded.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("release 1: [0."), done.stderr


@pytest.mark.kafka
def test_faust(on_kafka: Place) -> None:
    """The application scores all payments by the current release."""
    command = (sys.executable, "-m", "faust", "-A", "faust_app", "worker", "--without-web")
    topic = on_kafka.kit.pipeline.topics.predictions
    with on_kafka.running(*command) as process:
        until(lambda: len(on_kafka.values(topic)) >= len(PAYMENTS), PATIENCE_S, lambda: on_kafka.check(process))
    said = {prediction.id: prediction for prediction in on_kafka.kit.predictions()}
    assert [said[payment["id"]].scores[0] for payment in PAYMENTS] == pytest.approx(on_kafka.expected(), rel=1e-5)


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.parametrize(
    ("package", "command"),
    [("quixstreams", ["quix_job.py"]), ("bytewax", ["-m", "bytewax.run", "bytewax_job"])],
)
def test_other_stream_processors(on_kafka: Place, package: str, command: list[str]) -> None:
    """A job of Quix Streams and one of Bytewax score all payments by the current release."""
    topic = f"{on_kafka.name}.{command[-1].partition('_')[0]}-scores"
    on_kafka.kit.log.create([Topic(topic, 2)])
    with on_kafka.running(peer(package), *command) as process:
        until(lambda: len(on_kafka.values(topic)) >= len(PAYMENTS), PATIENCE_S, lambda: on_kafka.check(process))
    said = {scored["id"]: scored for scored in on_kafka.values(topic)}
    assert {scored["release"] for scored in said.values()} == {1}
    assert [said[payment["id"]]["fraud"] for payment in PAYMENTS] == pytest.approx(on_kafka.expected(), rel=1e-5)
