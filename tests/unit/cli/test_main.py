"""Command line: the effects of each command, and user errors as one line with the fix and the exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shell import PIPELINE, TOML, Shell
from support.waiting import PATIENCE_S

from tailrace.app.pipeline_file import load_pipeline
from tailrace.datafiles import templates
from tailrace.datafiles.infer import infer
from tailrace.datafiles.read import Columns, replay, rows
from tailrace.inference.releases.signing import create_keys
from tailrace.streams.log.codec import Malformed
from tailrace.streams.log.dead_letters import dead_letter
from tailrace.streams.log.records import Out, Record
from tailrace.streams.log.topology import topology
from tailrace.streams.log.url import open_log


def tailrace(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "tailrace", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("bogus", 2, "No such command 'bogus'"),
        ("send", 2, "see `tailrace send --help`"),
        ("worker --delivery maybe", 2, "'exactly_once' or 'at_least_once'"),
        ("tail predictions --log foo://x", 2, "is not the address of a log"),
        ("tail predictions", 1, "there is no topic 'small.predictions'"),
        ("tail predictions --log kafka://127.0.0.1:1", 4, "127.0.0.1:1"),
        ("run --log kafka://127.0.0.1:1", 4, "127.0.0.1:1"),
        ("demo --no-console --broker kafka://127.0.0.1:1", 4, "127.0.0.1:1"),
        ("demo --no-console --broker kafka://127.0.0.1", 2, "write kafka://host:port"),
        ("run --log sqlite:///pipeline.py/log.db", 4, "set log.url to a writable place"),
        ("worker --log sqlite:///.", 4, "cannot use the log"),
        ("worker gone.py", 2, "no pipeline file 'gone.py'"),
        ("worker pipeline.py:other", 2, "pipeline.py has no 'other'; it has pipeline"),
        ("worker gone.module:pipeline", 2, "there is no module 'gone'"),
        ("worker not-a-module", 2, "does not name a pipeline"),
        ("send gone.csv", 2, "cannot read 'gone.csv'"),
        ("send pipeline.py", 2, "unknown kind of file"),
        ("send data.csv --pace slow", 2, "unknown pace 'slow'"),
        ("send data.csv --rate 0", 2, "--rate needs a number above 0"),
        ("send data.csv --topic other", 2, "write events or labels"),
        ("models show 9", 1, "no topic 'small.models'"),
        ("dlq show nonsense", 2, "topic/partition/offset"),
        ("dlq ls --topic other", 2, "write events or labels"),
        ("init", 1, "pipeline.py exists already"),
        ("init new --from data.csv", 2, "--from needs --label"),
        ("init new --from data.csv --label gone", 2, "there is no column 'gone'"),
        ("init new --from data.csv --label y --name A", 2, "--name 'A': use lower-case letters"),
        ("--config gone.toml config show", 2, "the settings file 'gone.toml' cannot be read"),
    ],
)
def test_errors_are_one_line(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    code: int,
    message: str,
) -> None:
    """A user error is one line on stderr with its fix; stdout is empty and the exit code names the kind of error."""
    for module in ("client", "admin"):
        monkeypatch.setattr(f"tailrace.streams.log.kafka.{module}.CONNECT_S", 0.5)  # seconds
    shell.data(3)
    done = shell(*arguments.split())
    assert (done.code, done.out) == (code, "")
    assert message in done.error
    assert len(done.error.splitlines()) == 1, done.error
    assert done.error.startswith("tailrace: ")


def _key_not_trusted(keys: Path) -> None:
    create_keys(keys)
    for public in (keys / "trusted").iterdir():
        (keys / "revoked").mkdir()
        public.rename(keys / "revoked" / public.name)


def _key_readable_by_others(keys: Path) -> None:
    create_keys(keys)
    (keys / "signing.pem").chmod(0o644)


def _key_is_invalid(keys: Path) -> None:
    create_keys(keys)
    (keys / "signing.pem").write_text("secret")


def _invalid_public_key(keys: Path) -> None:
    create_keys(keys)
    (keys / "trusted" / "b.pub").write_text("b")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_key_not_trusted, "is not trusted, no worker would serve its releases: put its public half into"),
        (_key_readable_by_others, "signing.pem has mode 0644, others may read it: run `chmod 600"),
        (_key_is_invalid, "signing.pem: this is not an unencrypted private key in PEM: make one with"),
        (_invalid_public_key, "b.pub: this is not a public key in PEM: copy it again"),
        (lambda keys: keys.write_text(""), "set keys.directory to a writable directory"),
    ],
)
def test_bad_keys_are_one_line(shell: Shell, damage: Callable[[Path], None], message: str) -> None:
    """`run` reports a key error once, before it starts any role, and without the contents of the key file."""
    damage(shell.directory / ".tailrace-keys")
    (shell.directory / "tailrace.toml").write_text(TOML + '[keys]\ndirectory = ".tailrace-keys"\n')
    done = shell("run")
    assert done.code == 1
    assert message in done.error
    assert "secret" not in done.error
    assert len(done.error.splitlines()) == 1, done.error


def test_only_signing_roles_create_keys(shell: Shell) -> None:
    """`worker` and `models verify` report missing keys instead of creating them; `send` needs no key."""
    keys = shell.directory / ".tailrace" / "keys"
    (shell.directory / "tailrace.toml").write_text(TOML + "[monitoring]\nport = 0\n")
    assert shell("send", shell.data(3)).code == 0
    for command in (("worker",), ("models", "verify")):
        done = shell(*command)
        assert done.code == 1
        assert "copy trusted/ from the retrainer, or make keys with `tailrace keys new`" in done.error.splitlines()[-1]
    assert not keys.exists()


def test_a_retention_outlasts_the_wait_for_labels(shell: Shell) -> None:
    """A retention shorter than the wait for labels is refused, because a restarted joiner needs the predictions."""
    (shell.directory / "tailrace.toml").write_text(TOML.replace("[log]", '[log]\nretention = "1h"'))
    done = shell("send", shell.data(3))
    assert (done.code, len(done.error.splitlines())) == (2, 1)
    assert "log.retention = '1h' would remove predictions before their label's wait of 3600 s" in done.error
    (shell.directory / "tailrace.toml").write_text(TOML.replace("[log]", '[log]\nretention = "61m"'))
    assert shell("send", shell.data(3)).code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "pipeline.py, line 1: '(' was never closed"),
        ("\nimport nothing_like_this", "pipeline.py, line 2: there is no module 'nothing_like_this'"),
        ("pipeline = 3", "'pipeline' has the type int, not Pipeline"),
        ("pipeline = 1 / 0", "pipeline.py, line 1: ZeroDivisionError"),
        (PIPELINE.replace('"small"', '"NOT SO"'), "pipeline.py, line 11: 'NOT SO' cannot name a pipeline"),
        (PIPELINE.replace("    id: Key\n", "    id: Key | None\n"), "Row.id may be NoneType: an id is a text"),
    ],
)
def test_bad_pipeline_files_are_one_line(shell: Shell, text: str, message: str) -> None:
    """An error in the pipeline file is one line that names the file and the line in it."""
    (shell.directory / "pipeline.py").write_text(text)
    done = shell("run")
    assert done.code == 2
    assert message in done.error
    assert len(done.error.splitlines()) == 1


def test_debug_shows_the_traceback(shell: Shell) -> None:
    """--debug prints the traceback before the one line of the error."""
    done = shell("--debug", "worker", "gone.py")
    assert "Traceback" in done.error
    assert "BadPipeline" in done.error


def test_help_and_version(shell: Shell) -> None:
    """Without a command the help is printed; --version prints the version."""
    assert "Streaming inference" in shell().out
    assert "tailrace 0." in shell("--version").out


def test_config_show(shell: Shell) -> None:
    """Each setting is shown with its origin."""
    settings = {row["setting"]: row for row in shell("config", "show", "--json", "-p", "other.py").data}
    assert settings["pipeline"] == {"setting": "pipeline", "value": "other.py", "from": "flag"}
    assert settings["log.url"]["from"] == "tailrace.toml"
    assert "log.partitions" in shell("config", "show").out


def test_the_directory_of_the_log_is_created(shell: Shell) -> None:
    """The directory of an embedded log is created, also if its name contains an escape in the URL."""
    assert shell("send", shell.data(1), "--log", "sqlite:///my%20logs/log.db?synchronous=full").code == 0
    assert (shell.directory / "my logs" / "log.db").exists()


def test_send_and_tail(shell: Shell) -> None:
    """`send` writes rows as events and labels to their topics, and `tail` shows them."""
    done = shell("send", shell.data(2500), "--json")
    assert done.code == 0, done.error
    assert (done.data["events"], done.data["labels"], done.data["last"]) == (2500, 2500, 3599.0)
    assert "2,500 events, 2,500 labels sent" in done.error
    shown = [json.loads(line) for line in shell("tail", "events", "-n", "3", "--json").out.splitlines()]
    assert [record["key"] for record in shown] == [f"data.csv:{n}" for n in (2497, 2498, 2499)]
    assert shown[-1]["value"] == {"id": "data.csv:2499", "at": 3499.0, "x": 2499.0}
    assert len(shell("tail", "small.labels").out.splitlines()) == 10


def test_send_parts_of_a_file(shell: Shell) -> None:
    """Events and labels can be sent separately, and labels also from a separate file."""
    assert shell("send", shell.data(5), "--only", "events", "--json").data["labels"] == 0
    assert shell("send", shell.data(5), "--only", "labels", "--json").data["events"] == 0
    (shell.directory / "labels.jsonl").write_text('{"id": "1", "label": true}\n')
    done = shell("send", "labels.jsonl", "--topic", "labels", "--json")
    assert (done.data["events"], done.data["labels"]) == (0, 1)


def test_send_keeps_a_rate(shell: Shell) -> None:
    """At 100 events per second 31 events take at least 0.3 s; the recorded pace can be sped up by a factor."""
    assert shell("send", shell.data(31), "--rate", "100", "--json").data["seconds"] >= 0.3
    assert 0.1 <= shell("send", shell.data(2), "--pace", "x1000", "--json").data["seconds"] < 5.0


def test_send_names_an_invalid_row(shell: Shell) -> None:
    """An invalid event or label stops `send` with exit code 2, and the message names the row."""
    (shell.directory / "bad.csv").write_text("at,x,y,known\n1,1,1,2\n2,fast,1,3\n")
    done = shell("send", "bad.csv")
    assert done.code == 2
    assert "row 2 does not fit the declaration" in done.error
    (shell.directory / "bad.csv").write_text("at,x,y,known\n1,1,1,2\n2,3,perhaps,3\n")
    done = shell("send", "bad.csv")
    assert done.code == 2
    assert "row 2 does not fit the declaration: label 'perhaps' is neither true nor false" in done.error


def write_dead_letters(shell: Shell, *reasons: str) -> None:
    """Create the topics, and write one dead letter of the events topic for each reason."""
    log = shell.log()
    log.create(topology(load_pipeline("pipeline.py"), 1))
    writer = log.writer()
    for n, reason in enumerate(reasons):
        original = Record("small.events", 0, n, 5_000, f"k{n}".encode(), b"\xff{", (("h", b"1"),))
        writer.write([dead_letter(Malformed(original, reason, f"letter {n}"))])
    writer.commit()
    writer.flush()
    writer.close()
    log.close()


def test_dead_letters_are_listed_and_shown(shell: Shell) -> None:
    """`dlq ls` filters dead letters by topic and reason; `dlq show` prints one with its original record."""
    write_dead_letters(shell, "not_utf8", "wrong_shape")
    listed = shell("dlq", "ls", "--json").data
    assert [(row["letter"], row["reason"]) for row in listed] == [
        ("small.events.dlq/0/0", "not_utf8"),
        ("small.events.dlq/0/1", "wrong_shape"),
    ]
    assert [row["detail"] for row in shell("dlq", "ls", "--json", "--reason", "wrong_shape").data] == ["letter 1"]
    assert shell("dlq", "ls", "--json", "--topic", "labels").data == []
    letter = shell("dlq", "show", "small.events.dlq/0/1", "--json").data
    assert (letter["key"], letter["headers"], letter["source"]) == ("k1", {"h": "1"}, "small.events/0/1")
    assert "letter 1" in shell("dlq", "show", "small.events.dlq/0/1").out
    assert shell("dlq", "show", "small.events.dlq/0/9").code == 1


def test_dead_letters_are_replayed_once(shell: Shell) -> None:
    """A replay writes each original record once, in order of the topic; --reason replays only those of one reason."""
    write_dead_letters(shell, "not_utf8", "wrong_shape", "not_utf8")
    assert shell("dlq", "replay", "--reason", "not_utf8", "--json").data["replayed"] == 2
    assert shell("dlq", "replay", "--json").data["replayed"] == 1
    assert shell("dlq", "replay", "--json").data["replayed"] == 0
    write_dead_letters(shell, "not_utf8")
    assert shell("dlq", "replay", "--json").data == {
        "replayed": 1,
        "gone": 0,
        "topics": {"small.events": 1, "small.labels": 0, "small.predictions": 0},
    }
    log = shell.log()
    partition, end = next(iter(log.end_positions("small.events").items()))
    records = [record for batch in log.scan(partition, 0, end) for record in batch]
    log.close()
    assert sorted(record.key or b"" for record in records) == [b"k0", b"k0", b"k1", b"k2"]
    assert {(record.value, record.headers, record.timestamp) for record in records} == {
        (b"\xff{", (("h", b"1"),), 5_000)
    }


def test_keys(shell: Shell) -> None:
    """A key is created once and listed; a private key that others can read is refused."""
    created = shell("keys", "new", "--json").data
    assert shell("keys", "show", "--json").data == [{"key": created["key_id"], "state": "trusted", "signs": True}]
    assert shell("keys", "new").code == 1
    Path(created["signing"]).chmod(0o644)
    done = shell("keys", "show")
    assert done.code == 1
    assert "chmod 600" in done.error


def test_models_without_a_release(shell: Shell) -> None:
    """Before the first release the base rate serves; a missing release is an error that names it."""
    write_dead_letters(shell)
    create_keys(shell.directory / ".tailrace" / "keys")
    assert shell("models", "ls", "--json").data == []
    assert "release 0" in shell("models", "ls").error
    assert "base-rate model" in shell("models", "show").error
    assert shell("models", "show", "--json").data == {"version": 0, "aliases": []}
    for arguments in (("show", "7"), ("promote", "7"), ("verify", "7")):
        done = shell("models", *arguments)
        assert (done.code, "there is no release 7" in done.error) == (1, True)
    assert "nothing to roll back to" in shell("models", "rollback").error
    assert shell("models", "promote", "0", "--json").data == {"champion": 0, "before": 0}


def test_init_writes_an_example_that_passes_its_test(shell: Shell) -> None:
    """`init` without data writes a complete pipeline, whose file loads and whose own test passes."""
    done = shell("init", "new")
    assert (done.code, "tailrace run" in done.out) == (0, True)
    assert load_pipeline("new/pipeline.py").name == "payments"
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], cwd="new", capture_output=True, text=True
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_init_from_data_then_send(shell: Shell) -> None:
    """The files that `init --from` writes let `send` read the same data file without further options."""
    done = shell("init", "new", "--from", shell.data(300), "--label", "y", "--time", "at", "--label-time", "known")
    assert done.code == 0, done.error
    assert "300 rows: 1 features and the time of day and week; binary label, wait 5m" in done.error
    done = shell("--config", "new/tailrace.toml", "send", "data.csv", "-p", "new/pipeline.py", "--json")
    assert (done.data["events"], done.data["labels"]) == (300, 300)


def test_the_example_rows_match_their_declaration(tmp_path: Path) -> None:
    """The rows in the test of the example match its declaration."""
    (tmp_path / "rows.jsonl").write_text("\n".join(templates.EXAMPLE_ROWS))
    (tmp_path / "pipeline.py").write_text(templates.EXAMPLE)
    pipeline = load_pipeline(str(tmp_path / "pipeline.py"))
    assert len(list(replay(rows(tmp_path / "rows.jsonl"), pipeline, Columns()))) == 2


def test_an_interrupt_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C during `tail --follow` ends with exit code 130 and one line."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    log_url = f"sqlite:///{tmp_path}/log.db"
    log = open_log(log_url)
    log.create(topology(load_pipeline(str(tmp_path / "pipeline.py")), 1))
    writer = log.writer()
    writer.write([Out("small.events", b"k", b"{}")])
    writer.commit()
    writer.flush()
    writer.close()
    log.close()
    process = tailrace("tail", "-f", "small.events", "--log", log_url, cwd=tmp_path)
    assert process.stdout is not None
    assert "{}" in process.stdout.readline()  # the process follows the topic
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, error) == (130, "tailrace: interrupted\n")


def test_inference_reads_rows_once() -> None:
    """Inference of a declaration takes an iterator of rows, reads it once and counts the rows."""
    inferred = infer(({"x": n, "y": n % 2} for n in range(50)), Columns(label="y"))
    assert inferred.rows == 50
