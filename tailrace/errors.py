"""Root of the error tree, and exit codes of the command line.

TailraceError             base of all errors; `exit_code` is the exit status of a command that fails with it
+-- DeclarationError      the declaration of the pipeline is invalid (2)
+-- UserError             an error that the user can correct
    +-- BadSetting        a setting is unknown or has an invalid value (2)
    +-- BadPipeline       the pipeline file cannot be used (2)
    +-- BadData           a data file cannot be used (2)
    +-- MissingExtra      an optional package is not installed
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes of the `tailrace` command.

    REFUSED: a release would be refused by workers. UNREACHABLE: a dependency, such as a broker, cannot be reached.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


class TailraceError(Exception):
    """Base class of every error that Tailrace raises on purpose.

    The message names the problem, the object concerned and the fix. The command line appends `hint` to it.
    """

    exit_code: Exit = Exit.FAILED
    hint: ClassVar[str] = ""


class DeclarationError(TailraceError):
    """The declaration of the pipeline is invalid; the message names the class, the field and the fix."""

    exit_code = Exit.USAGE


class UserError(TailraceError):
    """An error that the user can correct. The argument `exit_code` overrides the exit code of the class."""

    def __init__(self, message: str, exit_code: Exit | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class BadSetting(UserError):
    """A setting is unknown or has an invalid value."""

    exit_code = Exit.USAGE


class BadPipeline(UserError):
    """The pipeline file cannot be used."""

    exit_code = Exit.USAGE


class BadData(UserError):
    """A data file cannot be used."""

    exit_code = Exit.USAGE


class MissingExtra(UserError):
    """An optional package is not installed; the message contains the pip command."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs {package}: run `pip install 'tailrace[{extra}]'`")


def error_line(error: BaseException) -> tuple[str, Exit]:
    """Return one line of text on an error, for the user, and the exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, TailraceError):
        return text + error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", Exit.INTERRUPTED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}", Exit.FAILED
    return f"unexpected {type(error).__name__}: {text} (run again with --debug for the traceback)", Exit.FAILED
