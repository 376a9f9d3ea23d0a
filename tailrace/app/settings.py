"""Settings: WHERE a pipeline runs. `tailrace.toml` (or [tool.tailrace] of pyproject.toml) < environment < flags.

Environment names are `TAILRACE_SECTION__KEY`, such as TAILRACE_LOG__URL. An unknown key is an error that names the
nearest known one. Secrets come from files or the environment, never from flags, and are masked wherever they are shown.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tailrace.errors import BadSetting
from tailrace.streams.log.url import SECRET

PREFIX = "TAILRACE_"
TOML = "tailrace.toml"
OWN_VARIABLES = frozenset(("TAILRACE_DEBUG", "TAILRACE_CONFIG"))  # read by the command line itself
MASK = "********"


class Section(BaseModel):
    """A table of settings: fixed, typed, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LogSettings(Section):
    """The log: `sqlite:///path` (embedded) or `kafka://host:port,host:port`, its options, and those of new topics.

    `retention`, such as "30d", must be longer than the label's wait. Without it the embedded log keeps all records,
    and a Kafka cluster keeps them for its own default time.
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
        """Return the TLS and SASL options for `log.url.open_log`, with those from files. Raises BadSetting."""
        options = {**_option_lines(self.options_file), **self.options}
        if self.sasl_password_file:
            options["sasl.password"] = _text(self.sasl_password_file, "log.sasl_password_file").strip()
        return options


class WorkerSettings(Section):
    """The worker: delivery promise, largest batch, latency to aim at, time between two commits (or the log's own)."""

    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    batch_max: int = Field(default=4_096, ge=1, le=100_000)
    latency_ms: float = Field(default=20.0, gt=0)
    commit_ms: float | None = Field(default=None, ge=0)
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9_.-]{1,100}$")


class JoinerSettings(Section):
    """The joiner: time between two commits (none: the log's), and its name among several."""

    commit_ms: float | None = Field(default=None, ge=0)
    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9_.-]{1,100}$")


class RetrainerSettings(Section):
    """The retrainer: how many processes train together, on as many cores or, where there are GPUs, GPUs."""

    nproc: int = Field(default=1, ge=1, le=1_024)


class KeysSettings(Section):
    """Ed25519 keys: a directory of them, or files for the signing and the trusted ones; `revoked` holds key ids."""

    directory: Path = Path(".tailrace/keys")
    signing: Path | None = None
    trusted: tuple[Path, ...] = ()
    revoked: tuple[str, ...] = ()


class ReleasesSettings(Section):
    """Weights of more than `inline_max_bytes` do not travel through the log: they lie below `store`, an fsspec URL that
    all roles can reach, such as s3://bucket/models. Without a store, all travel through the log."""

    store: str | None = None
    inline_max_bytes: int = Field(default=64 << 20, ge=0)


class MonitoringSettings(Section):
    """/metrics and /healthz of each role. Port 0 takes any free one."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65_535)


class ConsoleSettings(Section):
    """The live page, on this machine only: look from elsewhere through `ssh -L` or a proxy that knows who may.

    It changes nothing unless `token_file` names a file with a secret of at least 16 characters. Fields named in `mask`
    are shown to nobody, wherever they stand in a record. Port 0 takes any free one.
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
            raise ValueError("the console listens on 127.0.0.1, ::1 or localhost only: whoever reaches it may look")
        return value

    def token(self) -> str | None:
        """The secret; None: the console only shows. Raises BadSetting."""
        if self.token_file is None:
            return None
        token = _text(self.token_file, "console.token_file").strip()
        if len(token) < 16 or not token.isascii() or not token.isprintable():
            raise BadSetting(
                f"console.token_file {str(self.token_file)!r} must hold at least 16 printable ASCII characters: "
                f"`openssl rand -hex 32 > {self.token_file}`"
            )
        return token


class SendSettings(Section):
    """The columns of the data files that `tailrace send` reads, where they are not the event's own id and time."""

    id: str | None = None
    time: str | None = None
    label: str | None = None
    label_time: str | None = None


class CostsSettings(Section):
    """Prices, for the costs that reports show: `kwh` of a kilowatt-hour, `core_hour` of a processor core for an hour,
    in `currency`. `watts_per_core` is what a busy core draws where the machine does not say itself.

    The defaults are of the right size, no more: industry in the EU pays about 0.20 EUR a kWh; a general-purpose cloud
    core costs about 0.05 EUR an hour on demand (its power included: set `kwh` to 0 where that matters); server
    processors draw 4.4 W (AMD EPYC 7763: 280 W, 64 cores) to 6.8 W (Intel Xeon 8380: 270 W, 40 cores) a core.
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


class Origin(NamedTuple):
    """One setting, its value (secrets masked) and where it came from."""

    name: str
    value: Any
    origin: str


class Loaded(NamedTuple):
    """The settings and, for each key that is not at its default, where it came from."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[Origin]:
        """Every setting as `tailrace config show` prints it."""
        return [
            Origin(name, MASK if _secret(name) else value, self.origins.get(name, "default"))
            for name, value in _leaves(self.settings.model_dump(mode="json"))
        ]


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    file: Path | None = None,
    directory: Path = Path(),
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all sources. `flags` maps dotted names to values; those that are None were not given. Raises BadSetting."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    layers = (
        _from_file(file, directory, environment),
        _from_environment(environment),
        [Origin(name, value, "flag") for name, value in (flags or {}).items() if value is not None],
    )
    for layer in layers:
        for name, value, origin in layer:
            _check_known(name, origin)
            _put(values, name.split("."), value)
            origins[name] = origin
    try:
        return Loaded(Settings.model_validate(values), origins)
    except ValidationError as error:
        raise _misfit(error, origins) from None


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for child processes; values at their default are left out."""
    changed = settings.model_dump(mode="json", exclude_defaults=True)
    return {
        PREFIX + name.upper().replace(".", "__", 1): value if isinstance(value, str) else json.dumps(value)
        for name, value in _leaves(changed, whole=frozenset(("log.options",)))
    }


def _from_file(file: Path | None, directory: Path, environment: Mapping[str, str]) -> Iterator[Origin]:
    given = file or (Path(environment["TAILRACE_CONFIG"]) if environment.get("TAILRACE_CONFIG") else None)
    own, project = given or directory / TOML, directory / "pyproject.toml"
    if given or own.exists():
        yield from (Origin(name, value, str(own)) for name, value in _leaves(_toml(own)))
    elif project.exists():
        table = _toml(project).get("tool", {}).get("tailrace", {})
        yield from (Origin(name, value, f"{project} [tool.tailrace]") for name, value in _leaves(table))


def _from_environment(environment: Mapping[str, str]) -> Iterator[Origin]:
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in OWN_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower().replace("__", ".")
        if name.startswith("log.options."):  # a shell's names hold no dots: SASL_PASSWORD is sasl.password
            name = name.replace("_", ".")
        value = _parsed(text) if name in _STRUCTURED else text
        yield from (Origin(leaf, item, variable) for leaf, item in _leaves({name: value}))


def _parsed(text: str) -> Any:
    """A list or table from the environment: JSON, or values separated by commas."""
    if not text.startswith(("[", "{")):
        return text.split(",")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path, "the settings file"))
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{path}: no valid TOML: {error}") from None


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadSetting(
            f"{what} {str(path)!r} cannot be read ({reason}): check the path and its permissions"
        ) from None


def _option_lines(path: Path | None) -> dict[str, str]:
    """`key=value` lines, as in Kafka's own client property files; lines that start with # are comments."""
    if path is None:
        return {}
    lines = (line.strip() for line in _text(path, "log.options_file").splitlines())
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    bad = next((key for key, separator, _ in pairs if not separator), None)
    if bad is not None:
        raise BadSetting(
            f"{path}: a line has no '=': write each option as key=value, such as security.protocol=SASL_SSL"
        )
    return {key.strip(): value.strip() for key, _, value in pairs}


def _leaves(
    table: Mapping[str, Any], prefix: str = "", whole: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested tables; tables named in `whole` stay in one piece."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in whole:
            yield from _leaves(value, f"{name}.", whole)
        else:
            yield name, value


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    if path[:2] == ["log", "options"] and len(path) > 2:
        path = ["log", "options", ".".join(path[2:])]
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def _known_names() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for key, field in Settings.model_fields.items():
        section = field.annotation
        inner = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
        names.update({f"{key}.{name}": f.annotation for name, f in inner.items()} or {key: section})
    return names


_KNOWN = _known_names()
_STRUCTURED = frozenset(("log.options", "keys.trusted", "keys.revoked", "console.mask"))


def _check_known(name: str, origin: str) -> None:
    if name in _KNOWN or name.startswith("log.options."):
        return
    written = PREFIX + name.upper().replace(".", "__") if origin.startswith(PREFIX) else name
    near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "`tailrace config show` lists all settings"
    raise BadSetting(
        f"{origin}: unknown setting {written}; {hint}" if origin != written else f"unknown setting {written}; {hint}"
    )


def _misfit(error: ValidationError, origins: Mapping[str, str]) -> BadSetting:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    origin = next((origins[known] for known in origins if name.startswith(known)), "settings")
    given = MASK if _secret(name) else repr(first.get("input"))
    return BadSetting(f"{origin}: {name} = {given} does not fit: {first['msg'][0].lower()}{first['msg'][1:]}")


def _secret(name: str) -> bool:
    """Whether a value must not be shown. The paths of secret files may be."""
    if not name.startswith("log.options."):
        return False
    return any(word in name.lower() for word in SECRET)
