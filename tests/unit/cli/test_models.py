"""`tailrace models`: promotion and rollback of releases that workers refuse."""

from __future__ import annotations

from pathlib import Path

from support.publishing import PAYLOAD, manifest, report
from support.shell import Shell

from tailrace.app.pipeline_file import load_pipeline
from tailrace.inference.releases.signing import create_keys, load_trusted_keys
from tailrace.retrain.control.publisher import Publisher
from tailrace.streams.log.base import Committed, TopicPartition
from tailrace.streams.log.topology import topology

KEYS = Path(".tailrace/keys")


def publish(shell: Shell) -> None:
    """Publish the next release of the small pipeline, signed by the key of the directory."""
    log, examples = shell.log(), TopicPartition("small.examples", 0)
    key = create_keys(KEYS)
    log.create(topology(load_pipeline("pipeline.py"), 1))
    publisher = Publisher(log, "small.models", "small-retrainer", load_trusted_keys(KEYS), key)
    reader = log.reader(["small.examples"], group="small.retrainer", alone=True)
    parent = publisher.models.champion
    publisher.publish(manifest(parent), PAYLOAD, report(parent), {examples: Committed(0)}, reader)
    reader.close()
    publisher.close()
    log.close()


def test_promoting_a_release_with_a_revoked_key_is_refused(shell: Shell) -> None:
    """If the key of the parent is revoked, rollback and promotion to it fail with exit code 3; the champion stays."""
    publish(shell)
    old = KEYS / "trusted" / f"{create_keys(KEYS).key_id}.pub"
    (KEYS / "signing.pem").unlink()
    publish(shell)
    (KEYS / "revoked").mkdir()
    old.rename(KEYS / "revoked" / old.name)
    for arguments in (("rollback",), ("promote", "1")):
        done = shell("models", *arguments)
        assert (done.code, "revoked_key: release 1 would be refused by every worker" in done.error) == (3, True)
    aliases = {row["version"]: row["aliases"] for row in shell("models", "ls", "--json").data}
    assert aliases == {1: [], 2: ["champion"]}
    assert [row["verdict"] == "ok" for row in shell("models", "verify", "--json").data] == [False, True]
    assert shell("models", "promote", "0", "--json").data == {"champion": 0, "before": 2}
