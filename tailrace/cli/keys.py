"""Command group `keys`: the Ed25519 keys that sign releases, and the trusted public keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tailrace.cli.common import JsonOption, load_settings, print_json, print_table

app = typer.Typer(help="Keys that sign releases, and trusted keys.")
DirectoryOption: TypeAlias = Annotated[
    Path | None, typer.Option("--directory", help="Key directory. Default: keys.directory of the settings.")
]


@app.command("new")
def new(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """Create a signing key, and trust its public key. Fails if there is one already."""
    from tailrace.errors import UserError
    from tailrace.inference.releases.signing import SIGNING_KEY, create_keys

    key_directory = directory or load_settings().keys.directory
    path = key_directory / SIGNING_KEY
    if path.exists():
        raise UserError(f"{path} exists already: to rotate keys, move it away first; its public key stays trusted")
    key = create_keys(key_directory)
    if as_json:
        print_json({"key_id": key.key_id, "signing": str(path)})
    else:
        print(f"key {key.key_id}\nprivate: {path} (keep it on the retrainer's machine)")
        print(f"public: {key_directory / 'trusted'}")


@app.command("show")
def show(directory: DirectoryOption = None, as_json: JsonOption = False) -> None:
    """List the keys: the signing key, the trusted keys and the revoked keys."""
    from tailrace.inference.releases.signing import SIGNING_KEY, load_signing_key, load_trusted_keys

    key_directory = directory or load_settings().keys.directory
    trusted, path = load_trusted_keys(key_directory), key_directory / SIGNING_KEY
    signing = load_signing_key(path).key_id if path.exists() else None
    states = {**dict.fromkeys(sorted(trusted.ids), "trusted"), **dict.fromkeys(sorted(trusted.revoked), "revoked")}
    rows = [{"key": key, "state": state, "signs": key == signing} for key, state in states.items()]
    if signing is not None and signing not in states:
        rows.append({"key": signing, "state": "not trusted", "signs": True})
    print_table(rows, as_json=as_json)
