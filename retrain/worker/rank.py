"""The process of a rank other than 0: `python -m retrain.worker.rank`, started by `retrain.worker.group`.

It hears from rank 0, trains with it, and ends when its standard input does; its last word on standard output, if it
fails, is a Failure frame.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

from tailrace.retrain.worker.candidate import follow
from tailrace.retrain.worker.process import failure_of, own_output, prepare
from tailrace.retrain.worker.protocol import Hello, Job, send


def main() -> int:
    """Take part until standard input ends."""
    sink = own_output()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        take_part()
    except BaseException as error:
        send(sink, failure_of(error))
        return 1


def take_part() -> NoReturn:
    """Do what rank 0 does, for as long as there is one. Raises what goes wrong, and RuntimeError when it is gone."""
    from tailrace.retrain.worker.ranks import Follower

    follower = Follower()
    hello = follower.hear()
    assert isinstance(hello, Hello)
    spec = prepare(hello)
    while True:
        job = follower.hear()
        assert isinstance(job, Job)
        follow(spec, job, follower.group)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
