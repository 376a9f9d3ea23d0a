"""Data policies: the examples that a training run learns from, for `Training(data=...)`.

    from tailrace import Training, data

    Training(data=data.Recency(5_000))

All policies share the options `mature`, `balance`, `hard` and `late`.
"""

from tailrace.declaration.data import History, Recency, Reservoir, Window

__all__ = ["History", "Recency", "Reservoir", "Window"]
