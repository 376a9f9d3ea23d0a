"""What a user can do wrong, and what the command line answers: one line with its fix, and an exit code.

    UserError                 a message for the user and the exit code that goes with it
    +-- BadSetting            a setting is unknown or has a value that does not fit (2)
    +-- BadPipeline           the pipeline file cannot be used (2)
    +-- BadData               a data file cannot be used (2)

Every package has a tree of its own errors; `explain` gives each of them its exit code.
"""

from __future__ import annotations

import sys
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of the `tailrace` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can put right. The message says what happened, to what, and what to do."""

    code = Exit.FAILED

    def __init__(self, message: str, code: Exit | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BadSetting(UserError):
    """A setting is unknown or has a value that does not fit."""

    code = Exit.USAGE


class BadPipeline(UserError):
    """The pipeline file cannot be used."""

    code = Exit.USAGE


class BadData(UserError):
    """A data file cannot be used."""

    code = Exit.USAGE


def explain(error: BaseException) -> tuple[str, Exit]:
    """One line for the user, and the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text, error.code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", Exit.INTERRUPTED
    code = _declared(error)
    if code is not None:
        return text + _HINTS.get(type(error).__name__, ""), code
    if type(error).__name__ == "RoleFailed":
        return text, _ended_with(getattr(error, "code", 1))
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}", Exit.FAILED
    return f"unexpected {type(error).__name__}: {text} (run again with --debug for the traceback)", Exit.FAILED


def _declared(error: BaseException) -> Exit | None:
    """The exit code of an error that one of our packages raised on purpose; None for any other."""
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__name__}")
        if code is not None:
            return code
    return None


_HINTS = {
    "TopicMissing": " (`tailrace run` and `tailrace send` create a pipeline's topics)",
    "Fenced": " (several workers or joiners need names of their own: --instance)",
}


def _ended_with(code: int) -> Exit:
    """A child's exit code is ours; a child that was killed has failed."""
    return Exit(code) if code in Exit.__members__.values() else Exit.FAILED


# By name, so that explaining an error imports no package that has not been imported anyway.
_CODES = {
    "streams.log.Unreachable": Exit.UNREACHABLE,
    "streams.log.LogError": Exit.FAILED,
    "streams.connect.BadUrl": Exit.USAGE,
    "streams.events.DeclarationError": Exit.USAGE,
    "inference.keys.BadKey": Exit.FAILED,
    "inference.release.Refused": Exit.REFUSED,
    "retrain.models.UnknownRelease": Exit.FAILED,
    "retrain.rebuilding.Unrepeatable": Exit.FAILED,
    "monitoring.server.PortTaken": Exit.FAILED,
    "monitoring.comparison.NoMetrics": Exit.UNREACHABLE,
    "inference.stores.StoreUnreachable": Exit.UNREACHABLE,
}


def report(error: BaseException) -> Exit:
    """Print the line on stderr and return the exit code."""
    text, code = explain(error)
    print(f"tailrace: {text}", file=sys.stderr)
    return code
