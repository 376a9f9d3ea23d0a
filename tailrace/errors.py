"""The root of every error that Tailrace raises on purpose, and the exit codes of the command line.

TailraceError             every error below, and those of each package; `exit_code` is the command's exit status
+-- DeclarationError      the declaration cannot work (2)
+-- UserError             a message for the user
    +-- BadSetting        a setting is unknown or its value does not fit (2)
    +-- BadPipeline       the pipeline file cannot be used (2)
    +-- BadData           a data file cannot be used (2)
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes of the `tailrace` command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class TailraceError(Exception):
    """Base class of every error that Tailrace raises on purpose.

    The message says what happened, to what, and what to do. `hint` is added to it on the command line.
    """

    exit_code: Exit = Exit.FAILED
    hint: ClassVar[str] = ""


class DeclarationError(TailraceError):
    """The pipeline declaration cannot work; the message names the class and field, and the fix."""

    exit_code = Exit.USAGE


class UserError(TailraceError):
    """An error that the user can put right. `exit_code` overrides the class's own."""

    def __init__(self, message: str, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class BadSetting(UserError):
    """A setting is unknown or its value does not fit."""

    exit_code = Exit.USAGE


class BadPipeline(UserError):
    """The pipeline file cannot be used."""

    exit_code = Exit.USAGE


class BadData(UserError):
    """A data file cannot be used."""

    exit_code = Exit.USAGE


def error_line(error: BaseException) -> tuple[str, Exit]:
    """One line that explains an error to the user, and the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, TailraceError):
        return text + error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", Exit.INTERRUPTED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}", Exit.FAILED
    return f"unexpected {type(error).__name__}: {text} (run again with --debug for the traceback)", Exit.FAILED
