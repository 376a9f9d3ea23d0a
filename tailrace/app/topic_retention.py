"""Retention of new topics; one that is shorter than the wait for labels is refused at start-up."""

from __future__ import annotations

from tailrace.app.settings import Settings
from tailrace.declaration.durations import seconds
from tailrace.declaration.pipeline import Pipeline
from tailrace.errors import BadSetting


def topic_retention(pipeline: Pipeline, settings: Settings) -> float | None:
    """Return the configured retention of new topics in seconds; None if it is not set.

    Raises BadSetting if it is not longer than the wait for labels. A joiner that restarts reads again from its oldest
    open label window, so records must outlast that wait.
    """
    text, wait = settings.log.retention, pipeline.policy.wait
    if not text:
        return None
    if seconds(text) <= wait:
        raise BadSetting(
            f"log.retention = {text!r} would remove predictions before their label's wait of {wait:g} s has passed: "
            "make it longer than that, or shorten Label(wait)"
        )
    return seconds(text)
