"""Commands, one module per group. The modules import only the standard library and typer at the top, to start fast."""
