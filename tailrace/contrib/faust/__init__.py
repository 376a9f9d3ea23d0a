"""Integration with Faust: `attach(app, pipeline)` scores the events of a pipeline inside a Faust application."""

from tailrace.contrib.faust.attach import attach

__all__ = ["attach"]
