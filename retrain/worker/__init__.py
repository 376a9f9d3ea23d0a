"""The training process: its protocol, the client in the retrainer, and the process itself."""
