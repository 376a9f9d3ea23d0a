"""Settings of the environment in which a pipeline runs.

Precedence: tailrace.toml (if there is none, [tool.tailrace] of pyproject.toml) < environment < flags. Environment
variables are named TAILRACE_SECTION__KEY, such as TAILRACE_LOG__URL. An unknown key is an error that names the nearest
known key. Secrets come from the settings file, from files that it names or from the environment, never from flags, and
are masked when settings are shown.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tailrace.app.settings_source import (
    LOG_OPTIONS,
    SettingEntry,
    is_secret,
    leaves,
    put,
    read_environment,
    read_file,
    read_options,
    read_text,
    variable_name,
)
from tailrace.errors import BadSetting

MASK = "********"
"""Text shown instead of a secret value."""


class Section(BaseModel):
    """A table of settings: immutable, typed, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LogSettings(Section):
    """The log: its URL, its connection options, and the partitions and retention of topics that Tailrace creates.

    `url` is `sqlite:///path` (embedded) or `kafka://host:port,host:port`. `retention` is a duration such as "30d" and
    must be longer than the label's wait. Without it the embedded log keeps all records, and a Kafka cluster applies its
    own default.
    """

    url: str = "sqlite:///.tailrace/log.db"
    options: dict[str, str] = Field(default_factory=dict)
    options_file: Path | None = None
    sasl_password_file: Path | None = None
    partitions: int = Field(default=4, ge=1, le=10_000)
    retention: str | None = None

    @field_validator("retention")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        from tailrace.declaration.durations import seconds
        from tailrace.errors import DeclarationError

        try:
            seconds(value or 0)
        except DeclarationError as error:
            raise ValueError(str(error)) from None
        return value

    def connection_options(self) -> dict[str, str]:
        """Return the TLS and SASL options for `log.url.open_log`, including those from files. Raises BadSetting."""
        options = {**(read_options(self.options_file) if self.options_file else {}), **self.options}
        if self.sasl_password_file:
            options["sasl.password"] = read_text(self.sasl_password_file, "log.sasl_password_file").strip()
        return options


class WorkerSettings(Section):
    """The worker: delivery guarantee, largest batch (events), target latency and time between commits (milliseconds).

    Without `commit_ms` the time between commits depends on the log and on the delivery guarantee. `instance` is stable
    across restarts and unique among running workers.
    """

    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    batch_max: int = Field(default=4_096, ge=1, le=100_000)
    latency_ms: float = Field(default=20.0, gt=0)
    commit_ms: float | None = Field(default=None, ge=0)
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9_.-]{1,100}$")


class JoinerSettings(Section):
    """The joiner: time between commits in milliseconds (None: depends on the log), and instance name."""

    commit_ms: float | None = Field(default=None, ge=0)
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9_.-]{1,100}$")


class RetrainerSettings(Section):
    """The retrainer: number of processes that train one model in parallel, one per GPU, or per core without GPUs."""

    nproc: int = Field(default=1, ge=1, le=1_024)


class KeysSettings(Section):
    """Location of the Ed25519 keys of releases: a directory, or files of the signing key and the trusted public keys.

    `revoked` contains key ids.
    """

    directory: Path = Path(".tailrace/keys")
    signing: Path | None = None
    trusted: tuple[Path, ...] = ()
    revoked: tuple[str, ...] = ()


class ReleasesSettings(Section):
    """Storage of weights.

    Weights of more than `inline_max_bytes` are written below `store`, an fsspec URL that all roles can reach, such as
    s3://bucket/models. Without a store all weights are written to the log.
    """

    store: str | None = None
    inline_max_bytes: int = Field(default=64 << 20, ge=0)


class MonitoringSettings(Section):
    """The HTTP server of each role, with /metrics and /healthz. Port 0 takes any free port."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65_535)


class ConsoleSettings(Section):
    """Settings of the live page, which listens on this machine only (from elsewhere: `ssh -L`, or a proxy that
    authenticates).

    The page can only show, not change, unless `token_file` names a file with a secret of at least 16 characters. The
    values of fields named in `mask` are never shown, at any depth of a record. Port 0 takes any free port.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=9470, ge=0, le=65_535)
    token_file: Path | None = None
    mask: tuple[str, ...] = ()

    @field_validator("host")
    @classmethod
    def _is_loopback(cls, value: str) -> str:
        if value not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                "the console listens on 127.0.0.1, ::1 or localhost only, because it does not authenticate its readers"
            )
        return value

    def token(self) -> str | None:
        """Return the secret that allows changes; None if no change is allowed. Raises BadSetting."""
        if self.token_file is None:
            return None
        token = read_text(self.token_file, "console.token_file").strip()
        if len(token) < 16 or not token.isascii() or not token.isprintable():
            raise BadSetting(
                f"console.token_file {str(self.token_file)!r} must hold at least 16 printable ASCII characters: "
                f"`openssl rand -hex 32 > {self.token_file}`"
            )
        return token


class SendSettings(Section):
    """Columns of the data files that `tailrace send` reads. `id` and `time` default to the event's field names."""

    id: str | None = None
    time: str | None = None
    label: str | None = None
    label_time: str | None = None


class CostsSettings(Section):
    """Prices for the costs in reports, in `currency`: `kwh` per kilowatt-hour, `core_hour` per hour of one CPU core.

    `watts_per_core` is the power of a busy core, used if the machine has no readable energy counters.

    The defaults are rough: industry in the EU pays about 0.20 EUR per kWh; a general-purpose cloud core costs about
    0.05 EUR per hour on demand (which includes its power: set `kwh` to 0 in that case); server processors draw 4.4 W
    (AMD EPYC 7763: 280 W, 64 cores) to 6.8 W (Intel Xeon 8380: 270 W, 40 cores) per core.
    """

    currency: str = Field(default="EUR", min_length=1, max_length=10)
    kwh: float = Field(default=0.20, ge=0, allow_inf_nan=False)
    core_hour: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    watts_per_core: float = Field(default=5.0, ge=0, allow_inf_nan=False)


class Settings(Section):
    """All settings, with their defaults."""

    pipeline: str = "pipeline.py:pipeline"
    log: LogSettings = LogSettings()
    worker: WorkerSettings = WorkerSettings()
    joiner: JoinerSettings = JoinerSettings()
    retrainer: RetrainerSettings = RetrainerSettings()
    keys: KeysSettings = KeysSettings()
    releases: ReleasesSettings = ReleasesSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    console: ConsoleSettings = ConsoleSettings()
    send: SendSettings = SendSettings()
    costs: CostsSettings = CostsSettings()


class LoadedSettings(NamedTuple):
    """The settings, and the origin of each key that a source has set."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[SettingEntry]:
        """Return every setting with its origin, secrets masked, as `tailrace config show` prints them."""
        return [
            SettingEntry(name, MASK if is_secret(name) else value, self.origins.get(name, "default"))
            for name, value in leaves(self.settings.model_dump(mode="json"))
        ]


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    directory: Path = Path(),
    environment: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Read all sources. `flags` maps dotted names to values; a value of None means that the flag was not given.

    `environment` defaults to that of this process. Raises BadSetting.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = (
        read_file(file, directory, environment),
        read_environment(environment, _STRUCTURED),
        [SettingEntry(name, value, "flag") for name, value in (flags or {}).items() if value is not None],
    )
    for layer in layers:
        for name, value, origin in layer:
            _check_known(name, origin)
            put(values, name, value)
            origins[name] = origin
    try:
        return LoadedSettings(Settings.model_validate(values), origins)
    except ValidationError as error:
        raise _invalid_value(error, origins) from None


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables for child processes. Values at their default are left out."""
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    return {
        variable_name(name): value if isinstance(value, str) else json.dumps(value)
        for name, value in leaves(changed, whole=(LOG_OPTIONS,))
    }


def _known_names() -> dict[str, Any]:
    """Return the dotted name of every setting with its type."""
    names: dict[str, Any] = {}
    for key, field in Settings.model_fields.items():
        section = field.annotation
        inner = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
        names.update({f"{key}.{name}": f.annotation for name, f in inner.items()} or {key: section})
    return names


_KNOWN = _known_names()
_STRUCTURED = frozenset((LOG_OPTIONS, "keys.trusted", "keys.revoked", "console.mask"))
"""Settings that are lists or tables. In the environment they are JSON or separated by commas."""


def _check_known(name: str, origin: str) -> None:
    if name in _KNOWN or name.startswith(f"{LOG_OPTIONS}."):
        return
    nearest = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else "`tailrace config show` lists all settings"
    if origin == variable_name(name):
        raise BadSetting(f"unknown setting {origin}; {hint}")
    raise BadSetting(f"{origin}: unknown setting {name}; {hint}")


def _invalid_value(error: ValidationError, origins: Mapping[str, str]) -> BadSetting:
    """Return the error for the first invalid value: its origin, name, value (unless it is a secret) and the reason."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    origin = next((origins[known] for known in origins if name.startswith(known)), "settings")
    value = MASK if is_secret(name) else repr(first.get("input"))
    return BadSetting(f"{origin}: {name} = {value} does not fit: {first['msg'][0].lower()}{first['msg'][1:]}")
