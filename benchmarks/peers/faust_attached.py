"""`faust -A benchmarks.peers.faust_attached worker`: a Faust application with a pipeline attached to it."""

from __future__ import annotations

import faust

import tailrace.contrib.faust
from benchmarks.peers.job import given
from tailrace.app.settings import KeysSettings, Settings

job = given()
app = faust.App(job.predictions, broker=f"kafka://{job.bootstrap}", topic_disable_leader=True)
tailrace.contrib.faust.attach(app, job.declared, Settings(keys=KeysSettings(directory=job.keys)), view=False)  # type: ignore[arg-type]
