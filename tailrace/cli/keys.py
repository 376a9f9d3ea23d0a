"""`keys`: the Ed25519 keys that sign releases, and those that are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.common import JsonOption, emit, load_settings, table

app = typer.Typer(help="Keys: who may publish releases.")
Directory = Annotated[Path | None, typer.Option("--directory", help="The key directory; else keys.directory.")]


@app.command("new")
def new(directory: Directory = None, as_json: JsonOption = False) -> None:
    """Make a signing key; its public half becomes trusted."""
    from tailrace.errors import UserError
    from tailrace.inference.releases.signing import SIGNING_KEY, create_keys

    where = directory or load_settings().keys.directory
    path = where / SIGNING_KEY
    if path.exists():
        raise UserError(f"{path} is there already: to rotate, move it away first; its public half stays trusted")
    key = create_keys(where)
    if as_json:
        emit({"key_id": key.key_id, "signing": str(path)})
    else:
        print(f"key {key.key_id}\nprivate: {path} (keep it on the retrainer's machine)\npublic: {where / 'trusted'}")


@app.command("show")
def show(directory: Directory = None, as_json: JsonOption = False) -> None:
    """List the keys: which one signs, which are trusted, which revoked."""
    from tailrace.inference.releases.signing import SIGNING_KEY, load_signing_key, load_trusted_keys

    where = directory or load_settings().keys.directory
    trusted = load_trusted_keys(where)
    signing = load_signing_key(where / SIGNING_KEY).key_id if (where / SIGNING_KEY).exists() else None
    states = {**dict.fromkeys(sorted(trusted.ids), "trusted"), **dict.fromkeys(sorted(trusted.revoked), "revoked")}
    rows = [{"key": key, "state": state, "signs": key == signing} for key, state in states.items()]
    if signing is not None and signing not in states:
        rows.append({"key": signing, "state": "not trusted", "signs": True})
    table(rows, as_json=as_json)
