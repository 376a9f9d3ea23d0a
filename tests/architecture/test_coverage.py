"""Coverage measures what `make test-all` claims: all five folders, and roles that run as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.environment import unmeasured

from tailrace.errors import __file__ as errors_file

ROOT = Path(__file__).parents[2]
MODULES = {
    "streams": "tailrace.streams.log.records",
    "inference": "tailrace.inference.releases.manifest",
    "retrain": "tailrace.retrain.control.reports",
    "monitoring": "tailrace.monitoring.console.redaction",
    "tailrace": "tailrace.declaration.durations",
}
CHILD = f"import {', '.join(MODULES.values())}; print(flush=True); import signal; signal.pause()"
PARENT = f"""
import subprocess, sys, tempfile
with tempfile.TemporaryDirectory() as elsewhere:
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], cwd=elsewhere, stdout=subprocess.PIPE)
    child.stdout.readline()
    child.terminate()
    assert child.wait() == -15
"""


def test_processes_and_linked_folders_are_measured(tmp_path: Path) -> None:
    """A child process in another directory, ended by SIGTERM, counts for each of the five folders, and files that
    nobody imported count as not covered."""
    assert Path(errors_file).is_relative_to(ROOT), "the checkout is what is tested"
    script, report = tmp_path / "parent.py", tmp_path / "report.json"
    script.write_text(PARENT)
    environment = unmeasured()
    environment["COVERAGE_FILE"] = str(tmp_path / "data")
    for command in (("run", str(script)), ("combine", "--quiet"), ("json", "--quiet", "--fail-under=0", "-o", report)):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    files = json.loads(report.read_text())["files"]
    covered = {name: file["summary"]["covered_lines"] for name, file in files.items()}
    for folder, module in MODULES.items():
        path = module.replace(".", "/") + ".py"
        measured = path if folder == "tailrace" else path.removeprefix("tailrace/")
        assert covered[measured] > 0, measured
    assert covered["retrain/control/retrainer.py"] == 0
    assert not any(name.startswith(("tests/", "benchmarks/", "tailrace/streams/")) for name in files)
