"""The command line: what each command does, and that each error of a user is one line with its fix and exit code."""

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


def tailrace(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "tailrace", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
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
        ("worker not-a-module", 2, "names no pipeline"),
        ("send gone.csv", 2, "cannot read 'gone.csv'"),
        ("send pipeline.py", 2, "unknown kind of file"),
        ("send data.csv --pace slow", 2, "unknown pace 'slow'"),
        ("send data.csv --rate 0", 2, "--rate needs a number above 0"),
        ("send data.csv --topic other", 2, "write events or labels"),
        ("models show 9", 1, "no topic 'small.models'"),
        ("dlq show nonsense", 2, "topic/partition/offset"),
        ("dlq ls --topic other", 2, "write events or labels"),
        ("init", 1, "pipeline.py is there already"),
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
    said: str,
) -> None:
    """What a user can do wrong ends as one line on stderr with its fix, nothing on stdout, and the right exit code."""
    for module in ("client", "admin"):
        monkeypatch.setattr(f"tailrace.streams.log.kafka.{module}.CONNECT_S", 0.5)  # seconds
    shell.data(3)
    done = shell(*arguments.split())
    assert (done.code, done.out) == (code, "")
    assert said in done.error
    assert len(done.error.splitlines()) == 1, done.error
    assert done.error.startswith("tailrace: ")


def _key_not_trusted(keys: Path) -> None:
    create_keys(keys)
    for public in (keys / "trusted").iterdir():
        (keys / "revoked").mkdir()
        public.rename(keys / "revoked" / public.name)


def _key_open_to_all(keys: Path) -> None:
    create_keys(keys)
    (keys / "signing.pem").chmod(0o644)


def _key_is_none(keys: Path) -> None:
    create_keys(keys)
    (keys / "signing.pem").write_text("secret")


def _no_public_key(keys: Path) -> None:
    create_keys(keys)
    (keys / "trusted" / "b.pub").write_text("b")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_key_not_trusted, "is not trusted, no worker would serve its releases: put its public half into"),
        (_key_open_to_all, "signing.pem has mode 0644, others may read it: run `chmod 600"),
        (_key_is_none, "signing.pem: this is not an unencrypted private key in PEM: make one with"),
        (_no_public_key, "b.pub: this is not a public key in PEM: copy it again"),
        (lambda keys: keys.write_text(""), "set keys.directory to a writable directory"),
    ],
)
def test_bad_keys_are_one_line(shell: Shell, spoil: Callable[[Path], None], said: str) -> None:
    """`run` tells once what is wrong with the keys, before it starts any role; a secret is never shown."""
    spoil(shell.directory / ".tailrace-keys")
    (shell.directory / "tailrace.toml").write_text(TOML + '[keys]\ndirectory = ".tailrace-keys"\n')
    done = shell("run")
    assert done.code == 1
    assert said in done.error
    assert "secret" not in done.error
    assert len(done.error.splitlines()) == 1, done.error


def test_only_who_signs_makes_keys(shell: Shell) -> None:
    """A worker that finds no key says where to get one, instead of trusting one of its own; `send` needs none."""
    keys = shell.directory / ".tailrace" / "keys"
    (shell.directory / "tailrace.toml").write_text(TOML + "[monitoring]\nport = 0\n")
    assert shell("send", shell.data(3)).code == 0
    for command in (("worker",), ("models", "verify")):
        done = shell(*command)
        assert done.code == 1
        assert "copy trusted/ from the retrainer, or make keys with `tailrace keys new`" in done.error.splitlines()[-1]
    assert not keys.exists()


def test_a_retention_outlasts_the_wait_for_labels(shell: Shell) -> None:
    """A shorter one would remove predictions that the joiner needs when it starts again."""
    (shell.directory / "tailrace.toml").write_text(TOML.replace("[log]", '[log]\nretention = "1h"'))
    done = shell("send", shell.data(3))
    assert (done.code, len(done.error.splitlines())) == (2, 1)
    assert "log.retention = '1h' would remove predictions before their label's wait of 3600 s" in done.error
    (shell.directory / "tailrace.toml").write_text(TOML.replace("[log]", '[log]\nretention = "61m"'))
    assert shell("send", shell.data(3)).code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "pipeline.py, line 1: '(' was never closed"),
        ("\nimport nothing_like_this", "pipeline.py, line 2: there is no module 'nothing_like_this'"),
        ("pipeline = 3", "'pipeline' is a int, not a Pipeline"),
        ("pipeline = 1 / 0", "pipeline.py, line 1: ZeroDivisionError"),
        (PIPELINE.replace('"small"', '"NOT SO"'), "pipeline.py, line 11: 'NOT SO' cannot name a pipeline"),
        (PIPELINE.replace("    id: Key\n", ""), "Row needs exactly one field of type Key"),
    ],
)
def test_bad_pipeline_files_are_one_line(shell: Shell, text: str, said: str) -> None:
    """A pipeline file that cannot be used is named with the line."""
    (shell.directory / "pipeline.py").write_text(text)
    done = shell("run")
    assert done.code == 2
    assert said in done.error
    assert len(done.error.splitlines()) == 1


def test_debug_shows_the_traceback(shell: Shell) -> None:
    """--debug shows where an error came from, before the one line."""
    done = shell("--debug", "worker", "gone.py")
    assert "Traceback" in done.error
    assert "BadPipeline" in done.error


def test_help_and_version(shell: Shell) -> None:
    """Without a command there is help; --version tells the version."""
    assert "Streaming inference" in shell().out
    assert "tailrace 0." in shell("--version").out


def test_config_show(shell: Shell) -> None:
    """Each setting is shown with where it came from."""
    found = {row["setting"]: row for row in shell("config", "show", "--json", "-p", "other.py").data}
    assert found["pipeline"] == {"setting": "pipeline", "value": "other.py", "from": "flag"}
    assert found["log.url"]["from"] == "tailrace.toml"
    assert "log.partitions" in shell("config", "show").out


def test_the_directory_of_the_log_is_made(shell: Shell) -> None:
    """Also where its name is written with an escape."""
    assert shell("send", shell.data(1), "--log", "sqlite:///my%20logs/log.db?synchronous=full").code == 0
    assert (shell.directory / "my logs" / "log.db").exists()


def test_send_and_tail(shell: Shell) -> None:
    """Rows become events and labels in their topics, and can be looked at."""
    done = shell("send", shell.data(2500), "--json")
    assert done.code == 0, done.error
    assert (done.data["events"], done.data["labels"], done.data["last"]) == (2500, 2500, 3599.0)
    assert "2,500 events, 2,500 labels sent" in done.error
    shown = [json.loads(line) for line in shell("tail", "events", "-n", "3", "--json").out.splitlines()]
    assert [record["key"] for record in shown] == ["2497", "2498", "2499"]
    assert shown[-1]["value"] == {"id": "2499", "at": 3499.0, "x": 2499.0}
    assert len(shell("tail", "small.labels").out.splitlines()) == 10


def test_send_parts_of_a_file(shell: Shell) -> None:
    """Events and labels can be sent apart, and labels from a file of their own."""
    assert shell("send", shell.data(5), "--only", "events", "--json").data["labels"] == 0
    assert shell("send", shell.data(5), "--only", "labels", "--json").data["events"] == 0
    (shell.directory / "labels.jsonl").write_text('{"id": "1", "label": true}\n')
    done = shell("send", "labels.jsonl", "--topic", "labels", "--json")
    assert (done.data["events"], done.data["labels"]) == (0, 1)


def test_send_keeps_a_rate(shell: Shell) -> None:
    """At 100 events a second 31 events take no less than 0.3 seconds; the recorded pace may be sped up."""
    assert shell("send", shell.data(31), "--rate", "100", "--json").data["seconds"] >= 0.3
    assert 0.1 <= shell("send", shell.data(2), "--pace", "x1000", "--json").data["seconds"] < 5.0


def test_send_names_the_row_that_does_not_fit(shell: Shell) -> None:
    """A bad row stops the sending and is named; rows before it were not torn apart."""
    (shell.directory / "bad.csv").write_text("at,x,y,known\n1,1,1,2\n2,fast,1,3\n")
    done = shell("send", "bad.csv")
    assert done.code == 2
    assert "row 2 does not fit the declaration" in done.error
    (shell.directory / "bad.csv").write_text("at,x,y,known\n1,1,1,2\n2,3,perhaps,3\n")
    done = shell("send", "bad.csv")
    assert done.code == 2
    assert "row 2 does not fit the declaration: label 'perhaps' is neither true nor false" in done.error


def bad(shell: Shell, *reasons: str) -> None:
    """Write dead letters of the events topic, with these reasons."""
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
    """Each letter has a name, a reason and the original, to look at."""
    bad(shell, "not_utf8", "wrong_shape")
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
    """A replay writes the originals; a second one writes only what came since; reasons are kept apart."""
    bad(shell, "not_utf8", "wrong_shape", "not_utf8")
    assert shell("dlq", "replay", "--reason", "not_utf8", "--json").data["replayed"] == 2
    assert shell("dlq", "replay", "--json").data["replayed"] == 1
    assert shell("dlq", "replay", "--json").data["replayed"] == 0
    bad(shell, "not_utf8")
    assert shell("dlq", "replay", "--json").data == {
        "replayed": 1,
        "topics": {"small.events": 1, "small.labels": 0, "small.predictions": 0},
    }
    log = shell.log()
    partition, end = next(iter(log.end_positions("small.events").items()))
    found = [record for batch in log.scan(partition, 0, end) for record in batch]
    log.close()
    assert sorted(record.key or b"" for record in found) == [b"k0", b"k0", b"k1", b"k2"]
    assert {(record.value, record.headers, record.timestamp) for record in found} == {(b"\xff{", (("h", b"1"),), 5_000)}


def test_keys(shell: Shell) -> None:
    """A key is made once, and shown; one that others may read is refused."""
    made = shell("keys", "new", "--json").data
    assert shell("keys", "show", "--json").data == [{"key": made["key_id"], "state": "trusted", "signs": True}]
    assert shell("keys", "new").code == 1
    Path(made["signing"]).chmod(0o644)
    done = shell("keys", "show")
    assert done.code == 1
    assert "chmod 600" in done.error


def test_models_without_a_release(shell: Shell) -> None:
    """Before the first training the base rate serves; what is not there is named."""
    bad(shell)
    create_keys(shell.directory / ".tailrace" / "keys")
    assert shell("models", "ls", "--json").data == []
    assert "release 0" in shell("models", "ls").error
    assert "base rate" in shell("models", "show").error
    assert shell("models", "show", "--json").data == {"version": 0, "aliases": []}
    for arguments in (("show", "7"), ("promote", "7"), ("verify", "7")):
        done = shell("models", *arguments)
        assert (done.code, "there is no release 7" in done.error) == (1, True)
    assert "nothing to roll back to" in shell("models", "rollback").error
    assert shell("models", "promote", "0", "--json").data == {"champion": 0, "before": 0}


def test_init_writes_an_example_that_passes_its_test(shell: Shell) -> None:
    """What `init` writes without data is a whole pipeline: it loads, and its own test passes."""
    done = shell("init", "new")
    assert (done.code, "tailrace run" in done.out) == (0, True)
    assert load_pipeline("new/pipeline.py").name == "payments"
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], cwd="new", capture_output=True, text=True
    )
    assert passed.returncode == 0, passed.stdout + passed.stderr


def test_init_from_data_then_send(shell: Shell) -> None:
    """What `init --from` writes sends that very file without a further word."""
    done = shell("init", "new", "--from", shell.data(300), "--label", "y", "--time", "at", "--label-time", "known")
    assert done.code == 0, done.error
    assert "300 rows: 1 features and the time of day and week; binary label, wait 5m" in done.error
    done = shell("--config", "new/tailrace.toml", "send", "data.csv", "-p", "new/pipeline.py", "--json")
    assert (done.data["events"], done.data["labels"]) == (300, 300)


def test_the_example_fits_its_declaration(tmp_path: Path) -> None:
    """The rows in the example's test are what its producers would send."""
    (tmp_path / "rows.jsonl").write_text("\n".join(templates.EXAMPLE_ROWS))
    (tmp_path / "pipeline.py").write_text(templates.EXAMPLE)
    pipeline = load_pipeline(str(tmp_path / "pipeline.py"))
    assert len(list(replay(rows(tmp_path / "rows.jsonl"), pipeline, Columns()))) == 2


def test_an_interrupt_is_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C during `tail --follow` ends with exit code 130 and one line."""
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    shell_log = Out("small.events", b"k", b"{}")
    log_url = f"sqlite:///{tmp_path}/log.db"
    from tailrace.streams.log.url import open_log

    log = open_log(log_url)
    log.create(topology(load_pipeline(str(tmp_path / "pipeline.py")), 1))
    writer = log.writer()
    writer.write([shell_log])
    writer.commit()
    writer.flush()
    writer.close()
    log.close()
    process = tailrace("tail", "-f", "small.events", "--log", log_url, cwd=tmp_path)
    assert process.stdout is not None
    assert "{}" in process.stdout.readline()  # it runs
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, error) == (130, "tailrace: interrupted\n")


def test_sampling_needs_no_whole_file(tmp_path: Path) -> None:
    """Inference looks at the rows once, and says how many they were."""
    found = infer(({"x": n, "y": n % 2} for n in range(50)), Columns(label="y"))
    assert found.rows == 50
