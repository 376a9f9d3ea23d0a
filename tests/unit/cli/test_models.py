"""`tailrace models` where releases are."""

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
    """The next release of the small pipeline, signed by the directory's key."""
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


def test_going_back_to_what_no_worker_serves_is_refused(shell: Shell) -> None:
    """With the parent's key revoked neither rollback nor promotion pretend to work; the champion stays."""
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
