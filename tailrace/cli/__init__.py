"""The commands, one file a group. Only the standard library and typer are imported at the top of each."""
