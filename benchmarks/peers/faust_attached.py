"""Faust contender: an application with an attached pipeline.

faust -A benchmarks.peers.faust_attached worker
"""

from __future__ import annotations

from pathlib import Path

import faust

from benchmarks.peers.job import given
from tailrace.app.settings import KeysSettings, Settings
from tailrace.contrib.faust import attach

job = given()
app = faust.App(job.predictions, broker=f"kafka://{job.bootstrap}", topic_disable_leader=True)
attach(app, job.declared, Settings(keys=KeysSettings(directory=Path(job.keys))), view=False)
