"""Score events of a pipeline inside a Faust application: `attach(app, pipeline)`."""

from tailrace.contrib.faust.attach import attach

__all__ = ["attach"]
