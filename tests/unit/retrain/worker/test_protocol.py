"""Messages between the retrainer and its training process: round trips, limits, and processes that must end."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import retrain_pipeline as tiny
from support.jobs import job, rows

from tailrace.retrain.worker import protocol
from tailrace.retrain.worker.client import Trainer, TrainingFailed
from tailrace.retrain.worker.protocol import Failure, FrameTooLarge, Learn, Message, Rows, receive, send


def test_a_message_survives_the_pipe() -> None:
    """Numbers and tuples of flags as targets arrive as they were sent."""
    several = msgspec.structs.replace(job(), targets=[(0.0, 1.0, 1.0)] * 400)
    pipe = io.BytesIO()
    messages: list[Message] = [job(), several, Learn(Rows.of(rows(3))), Failure("error", "x")]
    for message in messages:
        send(pipe, message)
    pipe.seek(0)
    assert [receive(pipe) for _ in messages] == messages
    assert receive(pipe) is None


def test_the_sender_refuses_a_frame_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written, and the error names the message, its size, the limit and the largest field."""
    monkeypatch.setattr(protocol, "MAX_BYTES", 20_000)
    pipe = io.BytesIO()
    with pytest.raises(FrameTooLarge, match=r"a Job message of [\d,]+ bytes is above the limit of 20,000: its field"):
        send(pipe, job())
    large = msgspec.structs.replace(job(), champion=bytes(1_000_000))
    with pytest.raises(FrameTooLarge, match=r"its field champion has 1,000,00\d bytes"):
        send(pipe, large)
    assert pipe.getvalue() == b""


def test_the_receiver_refuses_a_frame_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of another sender ends the connection before its body is read."""
    pipe = io.BytesIO()
    send(pipe, job())
    pipe.seek(0)
    monkeypatch.setattr(protocol, "MAX_BYTES", 20_000)
    with pytest.raises(msgspec.DecodeError, match="above the limit of 20,000"):
        receive(pipe)


def test_a_job_above_the_limit_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails as `error` with what is too large, not as a killed process; a smaller one then succeeds."""
    trainer = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    try:
        with monkeypatch.context() as limited:
            limited.setattr(protocol, "MAX_BYTES", 20_000)
            with pytest.raises(TrainingFailed, match="above the limit of 20,000: its field features has") as failed:
                trainer.train(job())
        assert failed.value.reason == "error"
        assert trainer.train(job(msgspec.structs.replace(tiny.PLAN, epochs=1))).steps > 0
    finally:
        trainer.close()


def test_a_failure_after_the_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started has ended if its first message cannot be sent."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def record(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("tailrace.retrain.worker.client.subprocess.Popen", record)
    monkeypatch.setattr(protocol, "MAX_BYTES", 10)
    trainer = Trainer(tiny.LOADER, "support.retrain_pipeline:pipeline")
    with pytest.raises(FrameTooLarge):
        trainer.start()
    (process,) = started
    assert process.returncode is not None
    assert not Path(f"/proc/{process.pid}").exists() or os.name != "posix"
    assert trainer.pid is None
