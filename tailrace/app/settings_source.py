"""Sources of settings: TOML files, environment variables and flags, each read into (name, value, origin) entries.

A name is dotted, such as `log.url`. This module does not know the settings themselves: `tailrace.app.settings` does.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.errors import BadSetting
from tailrace.streams.log.url import SECRET

PREFIX = "TAILRACE_"
TOML = "tailrace.toml"
CLI_VARIABLES = frozenset(("TAILRACE_DEBUG", "TAILRACE_CONFIG"))
"""Environment variables of the command line. They start with PREFIX, but are not settings."""
LOG_OPTIONS = "log.options"
"""The one setting that is an open table: its keys are options of the Kafka client, whose names contain dots."""


class SettingEntry(NamedTuple):
    """One setting: dotted name, value, and origin (a file, an environment variable, "flag" or "default")."""

    name: str
    value: Any
    origin: str


def read_file(file: Path | None, directory: Path, environment: Mapping[str, str]) -> Iterator[SettingEntry]:
    """Read the settings file.

    It is the first of `file`, the file that TAILRACE_CONFIG names, `directory`/tailrace.toml, and the table
    [tool.tailrace] of `directory`/pyproject.toml. Without any of them there are no entries. Raise BadSetting if the
    file cannot be read or is not valid TOML.
    """
    explicit = file or (Path(environment["TAILRACE_CONFIG"]) if environment.get("TAILRACE_CONFIG") else None)
    path, project = explicit or directory / TOML, directory / "pyproject.toml"
    if explicit or path.exists():
        yield from (SettingEntry(name, value, str(path)) for name, value in leaves(_read_toml(path)))
    elif project.exists():
        table = _read_toml(project).get("tool", {}).get("tailrace", {})
        yield from (SettingEntry(name, value, f"{project} [tool.tailrace]") for name, value in leaves(table))


def read_environment(environment: Mapping[str, str], structured: Collection[str]) -> Iterator[SettingEntry]:
    """Read the variables TAILRACE_SECTION__KEY. `structured`: names of settings that are lists or tables.

    The texts of these settings are parsed; all other values stay text.
    """
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in CLI_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if name.startswith(f"{LOG_OPTIONS}."):
            # Names of variables cannot contain dots, so SASL_PASSWORD stands for the option sasl.password.
            name = name.replace("_", ".")
        value = _parse(text) if name in structured else text
        yield from (SettingEntry(leaf, item, variable) for leaf, item in leaves({name: value}))


def variable_name(name: str) -> str:
    """Return the environment variable of a setting: TAILRACE_LOG__URL for `log.url`."""
    return PREFIX + name.upper().replace(".", "__")


def leaves(
    table: Mapping[str, Any], prefix: str = "", whole: Collection[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Iterate over the dotted names and values of nested tables. Tables named in `whole` are not split."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in whole:
            yield from leaves(value, f"{name}.", whole)
        else:
            yield name, value


def put(values: dict[str, Any], name: str, value: Any) -> None:
    """Store a value under its dotted name in nested tables."""
    path: Sequence[str] = name.split(".")
    if name.startswith(f"{LOG_OPTIONS}."):
        path = [*LOG_OPTIONS.split("."), name.removeprefix(f"{LOG_OPTIONS}.")]
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def is_secret(name: str) -> bool:
    """True if the value of this setting must be masked. Paths of secret files may be shown."""
    return name.startswith(f"{LOG_OPTIONS}.") and any(word in name.lower() for word in SECRET)


def read_text(path: Path, description: str) -> str:
    """Read a UTF-8 file. Raise BadSetting, whose message begins with `description`, if that fails."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadSetting(
            f"{description} {str(path)!r} cannot be read ({reason}): check the path and its permissions"
        ) from None


def read_options(path: Path) -> dict[str, str]:
    """Read `key=value` lines, the format of Kafka client properties. Lines that start with # are comments.

    Raises BadSetting.
    """
    lines = (line.strip() for line in read_text(path, "log.options_file").splitlines())
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if not all(separator for _, separator, _ in pairs):  # the message does not quote the line: it may hold a secret
        raise BadSetting(
            f"{path}: a line has no '=': write each option as key=value, such as security.protocol=SASL_SSL"
        )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _parse(text: str) -> Any:
    """Convert the text of an environment variable to the list or table that its setting needs.

    A text that begins with "[" or "{" is JSON; any other text is a list of values, separated by commas. Invalid JSON is
    returned unchanged.
    """
    if not text.startswith(("[", "{")):
        return text.split(",")
    try:
        return json.loads(text)
    except ValueError:
        return text  # the validation of the setting reports it


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, "the settings file"))
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{path}: no valid TOML: {error}") from None
