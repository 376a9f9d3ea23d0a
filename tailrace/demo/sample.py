"""Sample of the demo's flights as a CSV file with few columns, as input for `tailrace init --from`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from tailrace.datafiles.read import rows
from tailrace.demo.flights import DATA
from tailrace.errors import UserError

ROWS = 5_000
"""Departures in the sample: the first six days of January 2013."""
COLUMNS = ("id", "scheduled", "carrier", "hour", "distance", "wind_gust", "landed", "late")


def write(path: Path) -> int:
    """Write the sample to `path`; return the number of rows. Raises UserError if the file exists, and OSError.

    `scheduled` and `landed` are UTC times in ISO 8601, `hour` is the local hour of departure, `distance` is in miles,
    `wind_gust` in mph. `late` is 1 for an arrival 15 or more minutes late. `landed` and `late` are empty for a
    cancelled flight, `wind_gust` if no gust was measured.
    """
    if path.exists():
        raise UserError(f"{path} exists already: choose another name or remove the file")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_sample())
    return ROWS


def _sample() -> Iterator[dict[str, Any]]:
    for number, row in enumerate(islice(rows(DATA), ROWS), start=1):
        yield {
            "id": f"{row['carrier']}{number}",
            "scheduled": _utc(row, "event_time"),
            "carrier": row["carrier"],
            "hour": int(row["dep_minute"]) // 60,
            "distance": row["distance"],
            "wind_gust": row.get("wind_gust", ""),
            "landed": _utc(row, "label_time"),
            "late": row.get("label", ""),
        }


def _utc(row: Mapping[str, str], column: str) -> str:
    """Return a column of unix seconds as ISO 8601 text; empty if the row has no value."""
    return f"{datetime.fromtimestamp(float(row[column]), UTC):%Y-%m-%dT%H:%M:%SZ}" if column in row else ""
