"""Settings: their sources, the precedence and origin of values, and the errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace.app.settings import MASK, ConsoleSettings, Settings, as_environment, load_settings
from tailrace.errors import BadSetting


def write(path: Path, text: str) -> Path:
    """Write a text file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_need_no_file(tmp_path: Path) -> None:
    """Without any source every setting has its default value and the origin "default"."""
    loaded = load_settings(directory=tmp_path, environment={})
    assert Settings() == loaded.settings
    assert {"default"} == {row.origin for row in loaded.rows()}


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    """Flags override the environment, which overrides the file, key by key; each value has its origin."""
    file = write(tmp_path / "tailrace.toml", '[log]\nurl = "sqlite:///file.db"\npartitions = 2\nretention = "7d"\n')
    environment = {"TAILRACE_LOG__URL": "sqlite:///environment.db", "TAILRACE_LOG__PARTITIONS": "3"}
    loaded = load_settings({"log.url": "sqlite:///flag.db"}, directory=tmp_path, environment=environment)
    origins = {row.name: (row.value, row.origin) for row in loaded.rows()}
    assert origins["log.url"] == ("sqlite:///flag.db", "flag")
    assert origins["log.partitions"] == (3, "TAILRACE_LOG__PARTITIONS")
    assert ("7d", str(file)) == origins["log.retention"]


def test_absent_flags_override_nothing(tmp_path: Path) -> None:
    """A flag with the value None does not override the other sources."""
    assert load_settings({"log.url": None}, directory=tmp_path, environment={}).rows()[1].origin == "default"


def test_pyproject_is_read_without_a_settings_file(tmp_path: Path) -> None:
    """[tool.tailrace] is read if there is no tailrace.toml."""
    write(tmp_path / "pyproject.toml", '[tool.tailrace.worker]\ninstance = "seven"\n')
    assert load_settings(directory=tmp_path, environment={}).settings.worker.instance == "seven"
    write(tmp_path / "tailrace.toml", "")
    assert load_settings(directory=tmp_path, environment={}).settings.worker.instance == "0"


def test_the_settings_file_can_be_chosen(tmp_path: Path) -> None:
    """TAILRACE_CONFIG names the file; the argument `file` overrides it."""
    one = write(tmp_path / "one.toml", 'pipeline = "one.py"')
    two = write(tmp_path / "two.toml", 'pipeline = "two.py"')
    environment = {"TAILRACE_CONFIG": str(one)}
    assert load_settings(directory=tmp_path, environment=environment).settings.pipeline == "one.py"
    assert load_settings(file=two, directory=tmp_path, environment=environment).settings.pipeline == "two.py"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[log]\nurll = "x"', "unknown setting log.urll; did you mean log.url?"),
        ("[wurker]\nbatch_max = 3", "unknown setting wurker.batch_max; did you mean worker.batch_max?"),
        ("zzz = 1", "unknown setting zzz; `tailrace config show` lists all settings"),
        ('[worker]\nbatch_max = "many"', "worker.batch_max = 'many' does not fit"),
        ("[log]\npartitions = 0", "log.partitions = 0 does not fit"),
        ("log = 3", "unknown setting log;"),
        ("[log", "no valid TOML"),
        ('[log]\nretention = "soon"', "log.retention = 'soon' does not fit: value error, 'soon' is not a duration"),
    ],
)
def test_errors_of_a_file_name_the_fix(tmp_path: Path, text: str, message: str) -> None:
    """An unknown key or an invalid value is an error that names file, key and fix."""
    file = write(tmp_path / "tailrace.toml", text)
    with pytest.raises(BadSetting) as caught:
        load_settings(directory=tmp_path, environment={})
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    """A misspelt environment variable is an error; the variables of the command line itself are accepted."""
    load_settings(directory=tmp_path, environment={"TAILRACE_DEBUG": "1", "OTHER": "x"})
    with pytest.raises(BadSetting, match=r"unknown setting TAILRACE_LOG__URRL; did you mean log\.url\?"):
        load_settings(directory=tmp_path, environment={"TAILRACE_LOG__URRL": "x"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A settings file that was chosen must exist."""
    with pytest.raises(BadSetting, match=r"gone\.toml.*cannot be read"):
        load_settings(file=tmp_path / "gone.toml", environment={})


def test_lists_from_the_environment(tmp_path: Path) -> None:
    """A list in the environment is JSON, or its values separated by commas."""
    for text in ('["a.pub", "b.pub"]', "a.pub,b.pub"):
        settings = load_settings(directory=tmp_path, environment={"TAILRACE_KEYS__TRUSTED": text}).settings
        assert (Path("a.pub"), Path("b.pub")) == settings.keys.trusted


def test_secrets_come_from_files_or_the_environment(tmp_path: Path) -> None:
    """Connection options are merged from a properties file, the table, the environment and a password file."""
    write(tmp_path / "kafka.properties", "# TLS\nsecurity.protocol = SASL_SSL\n\nssl.ca.location=/ca.pem\n")
    write(tmp_path / "password", "s3cret\n")
    write(
        tmp_path / "tailrace.toml",
        f"[log]\noptions_file = '{tmp_path}/kafka.properties'\nsasl_password_file = '{tmp_path}/password'\n"
        "options.sasl.mechanism = 'PLAIN'\n",
    )
    environment = {"TAILRACE_LOG__OPTIONS__SASL_USERNAME": "me"}
    options = load_settings(directory=tmp_path, environment=environment).settings.log.connection_options()
    expected = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/ca.pem",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "s3cret",
    }
    assert expected == options


@pytest.mark.parametrize("name", ["SASL_PASSWORD", "SSL_KEY_PASSWORD", "SASL_OAUTHBEARER_CLIENT_SECRET"])
def test_secrets_are_masked(tmp_path: Path, name: str) -> None:
    """A secret is shown as a mask, with its origin."""
    variable = f"TAILRACE_LOG__OPTIONS__{name}"
    rows = load_settings(directory=tmp_path, environment={variable: "s3cret"}).rows()
    assert [(MASK, variable)] == [(row.value, row.origin) for row in rows if row.name.startswith("log.options.")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"log.url": "kafka://a:1,b:2", "log.options": {"sasl.password": "x", "security.protocol": "SSL"}},
        {"keys.trusted": ["a", "b"], "worker.commit_ms": 5.5, "monitoring.enabled": False, "pipeline": "p.py:x"},
    ],
)
def test_settings_survive_the_round_trip_through_the_environment(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A child process whose environment is `as_environment` has equal settings."""
    settings = load_settings(changes, directory=tmp_path, environment={}).settings
    assert settings == load_settings(directory=tmp_path, environment=as_environment(settings)).settings


def test_prices_have_defaults_and_must_not_be_negative(tmp_path: Path) -> None:
    """Currency and prices can be set; a negative price is refused."""
    file = write(tmp_path / "tailrace.toml", '[costs]\ncurrency = "CHF"\nkwh = 0\n')
    costs = load_settings(file=file, environment={}).settings.costs
    assert (costs.currency, costs.kwh, costs.core_hour, costs.watts_per_core) == ("CHF", 0.0, 0.05, 5.0)
    with pytest.raises(BadSetting, match=r"costs\.core_hour"):
        load_settings(directory=tmp_path, environment={"TAILRACE_COSTS__CORE_HOUR": "-1", "TAILRACE_CONFIG": str(file)})


def test_the_console_listens_on_this_machine_only() -> None:
    """A host other than the loopback interface is refused, because the console shows its page without a login."""
    with pytest.raises(BadSetting, match=r"127\.0\.0\.1, ::1 or localhost only"):
        load_settings({"console.host": "0.0.0.0"}, environment={})
    listed = load_settings(environment={"TAILRACE_CONSOLE__MASK": "name,street"}).settings
    assert listed.console.mask == ("name", "street")
    assert load_settings(environment=as_environment(listed)).settings == listed


def test_a_token_comes_from_a_file_and_is_long(tmp_path: Path) -> None:
    """There is no token without a token file; a missing file, a short token and one that an HTTP header cannot contain
    are refused with the fix."""
    assert ConsoleSettings().token() is None
    file = tmp_path / "token"
    with pytest.raises(BadSetting, match="cannot be read"):
        ConsoleSettings(token_file=file).token()
    for text in ("", "short", "fünfzehn Zeichen und mehr"):
        file.write_text(text)
        with pytest.raises(BadSetting, match="at least 16 printable ASCII characters"):
            ConsoleSettings(token_file=file).token()
    file.write_text("sixteen or more of them\n")
    assert ConsoleSettings(token_file=file).token() == "sixteen or more of them"
