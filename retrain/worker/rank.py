"""Process of a rank other than 0: `python -m tailrace.retrain.worker.rank`, started by `tailrace.retrain.worker.ranks`.

It receives messages from rank 0, trains with it, and ends when its standard input closes. If it fails, it writes a
Failure frame to standard output.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from tailrace.retrain.worker.candidate import take_part_in
from tailrace.retrain.worker.process import failure_of, own_output, prepare
from tailrace.retrain.worker.protocol import Hello, Job, send


def main() -> int:
    """Train with rank 0 until standard input closes, which ends the process with exit code 0.

    Returns 1 after an error, which was written as a Failure.
    """
    sink = own_output()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        take_part()
    except BaseException as error:
        send(sink, failure_of(error))
        return 1


def take_part() -> NoReturn:
    """Train with rank 0 for as long as it lives. Raises any error of training, and RuntimeError when rank 0 ends."""
    from tailrace.retrain.worker.ranks import RankMember

    member = RankMember()
    hello = member.receive()
    assert isinstance(hello, Hello)
    spec = prepare(hello)
    while True:
        job = member.receive()
        assert isinstance(job, Job)
        take_part_in(spec, job, member.group)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
