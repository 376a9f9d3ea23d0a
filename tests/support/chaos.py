"""Chaos: roles as real processes, killed (SIGKILL) by a seeded schedule while events and labels arrive; then an audit.

Nothing here depends on the kind of log or on the code of the roles: a `Role` is a command and a measure of progress.
So the same schedule serves the embedded log and Kafka, small stand-ins and the real commands.

    sender = Sender(log, names, seed)
    with Chaos(roles, directory) as chaos, sender:
        chaos.strike(times=5, seed=seed)       each role, five times, whenever it has made progress again
        sender.finish(seconds)
        chaos.await_(Complete(log, "pipeline", sender.sent))
    audit(partial(records, log), names, sender.sent)
"""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import msgspec
from support.environment import unmeasured
from support.waiting import PATIENCE_S

from tailrace.declaration.task import LabelValue
from tailrace.streams.join.rekey import is_drained
from tailrace.streams.log.base import Log, Topic, TopicPartition
from tailrace.streams.log.codec import encode
from tailrace.streams.log.dead_letters import dead_letter_topic
from tailrace.streams.log.records import LabelMessage, Out, Record

PYTHONPATH = str(Path(__file__).parents[1])
QUIET = 20.0  # seconds without a new record after which, with all input committed, no more are expected
WAIT = 5.0  # seconds of event time that the join waits for a label
LATEST = 2.0  # seconds after its event that a label still arrives
TICK = 0.02  # seconds between two writes of the sender
RATE = 500  # events in a second


class Names(NamedTuple):
    """The default names of a pipeline's topics."""

    events: str
    predictions: str
    labels: str
    examples: str

    @classmethod
    def of(cls, pipeline: str) -> Names:
        return cls(*(f"{pipeline}.{topic}" for topic in cls._fields))

    def create(self, log: Log, partitions: int) -> None:
        """Create the topics and their dead-letter topics."""
        log.create([Topic(name, partitions) for name in self])
        log.create([Topic(dead_letter_topic(name)) for name in self])


class Role(NamedTuple):
    """A process to kill: its command, and a number that grows while it makes progress."""

    name: str
    command: Sequence[str]
    progress: Callable[[], int]


class Chaos:
    """The processes of all roles; a context manager that starts them, and drains them (SIGTERM) at the end.

    Their output goes to `<directory>/<role>.log`. `check` is called while a condition is awaited; it raises if the
    condition can never hold.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._roles, self._directory, self._check = roles, directory, check
        self._environment = (
            unmeasured() | {"PYTHONPATH": PYTHONPATH, "PYTHONFAULTHANDLER": "1"} | dict(environment or {})
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}
        self._marks = {role.name: role.progress() for role in roles}  # progress at the start of the process
        self._begins: dict[str, int] = {}  # offset in its log at the start of the process

    def __enter__(self) -> Chaos:
        for role in self._roles:
            self._logs[role.name] = (self._directory / f"{role.name}.log").open("wb")
            self._start(role)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:  # before its start has been logged, SIGTERM would end a role without a drain
                self.await_(lambda: all(map(self._has_started, self._running)))
            for process in self._running.values():
                process.terminate()
            codes = {name: self._wait(process) for name, process in self._running.items()}
        finally:
            for process in self._running.values():
                process.kill()
                process.wait()
            for log in self._logs.values():
                log.close()
        if kind is None:
            assert set(codes.values()) == {0}, f"drained with exit codes {codes}{self.logs()}"

    def strike(self, times: int, seed: int, besides: Sequence[Callable[[], None]] = ()) -> None:
        """Kill each role `times` times, each time a random moment after it has made progress; restart it at once.

        The functions `besides` are called in their order, at random places between the kills.
        """
        dice = random.Random(seed)
        plan: list[Callable[[], None]] = [partial(self._kill, role, dice) for role in self._roles for _ in range(times)]
        dice.shuffle(plan)
        places = sorted(dice.choices(range(len(plan) + 1), k=len(besides)))
        for place, action in reversed([*zip(places, besides, strict=True)]):
            plan.insert(place, action)
        for action in plan:
            action()

    def await_(self, condition: Callable[[], bool], patience: float = PATIENCE_S) -> None:
        """Wait until the condition holds; fail at once if a role ends by itself."""
        deadline = time.monotonic() + patience
        while not condition():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            assert not ended, f"{ended} ended by themselves{self.logs()}"
            self._check()
            assert time.monotonic() < deadline, f"the condition did not hold within {patience:.0f} s{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the end of each role's log."""
        texts = {role.name: (self._directory / f"{role.name}.log").read_text() for role in self._roles}
        return "".join(f"\n--- {name}\n{text[-2_000:]}" for name, text in texts.items())

    def _kill(self, role: Role, dice: random.Random) -> None:
        self.await_(lambda: role.progress() > self._marks[role.name])
        time.sleep(dice.uniform(0.0, 0.5))  # the moment is part of the schedule
        process = self._running[role.name]
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL, f"{role.name} had ended by itself{self.logs()}"
        self._marks[role.name] = role.progress()
        self._start(role)

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """Return the exit code. A process that hangs gets SIGABRT, so that faulthandler prints its stacks."""
        try:
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            return process.wait(PATIENCE_S)

    def _has_started(self, name: str) -> bool:
        """Return True if the role has logged its start, which it does once it handles signals."""
        with (self._directory / f"{name}.log").open("rb") as log:
            log.seek(self._begins[name])
            return b"started" in log.read()

    def _start(self, role: Role) -> None:
        log = self._logs[role.name]
        self._begins[role.name] = (self._directory / f"{role.name}.log").stat().st_size
        self._running[role.name] = subprocess.Popen(role.command, env=self._environment, stdout=log, stderr=log)


@dataclass
class Sent:
    """Events and labels that were sent; they determine the expected output."""

    events: list[str] = field(default_factory=list)
    labels: dict[str, LabelValue] = field(default_factory=dict)  # by id: the label that must win


class Sender:
    """A thread that appends events and their labels at a rate; a context manager.

    Of the labels a tenth is missing, a tenth comes twice (the second one conflicting), some come before their event,
    some come too late to count, and some belong to no event at all.
    """

    def __init__(self, log: Log, names: Names, seed: int, *, wait: float = WAIT, rate: int = RATE) -> None:
        self.sent = Sent()
        self._log, self._names, self._wait, self._rate = log, names, wait, rate
        self._dice = random.Random(seed)
        self._agenda: dict[int, list[Out]] = {}  # by tick
        self._began = time.time()
        self._finished = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        self._thread.join()

    def finish(self, seconds: float) -> None:
        """Continue until `seconds` after the start; then send the remaining labels and end."""
        self._finished.wait(max(0.0, self._began + seconds - time.time()))
        self._finished.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise the exception that ended the thread early, if there is one."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        writer = self._log.writer()
        try:
            for tick in self._ticks():
                writer.write([*self._events(tick), *self._agenda.pop(tick, ())])
                writer.commit()
            writer.write([out for tick in sorted(self._agenda) for out in self._agenda[tick]])
            writer.commit()
            writer.flush()
        except BaseException as error:
            self._error = error
        finally:
            writer.close()

    def _ticks(self) -> Iterator[int]:
        tick = 0
        while not self._finished.is_set():
            yield tick
            tick += 1
            time.sleep(max(0.0, self._began + tick * TICK - time.time()))

    def _events(self, tick: int) -> list[Out]:
        """Return the events of a tick; schedule their labels."""
        outs: list[Out] = []
        for number in range(int(self._rate * TICK)):
            id, time = f"{tick}-{number}", self._began + tick * TICK
            event = Out(self._names.events, None, encode({"id": id, "at": time, "x": number}))
            early = self._dice.random() < 0.1
            if early:
                self._agenda.setdefault(tick + 1 + int(0.5 / TICK), []).append(event)
            else:
                outs.append(event)
            self.sent.events.append(id)
            self._label(id, time, tick, 1 if early else self._dice.randint(1, int(LATEST / TICK)))
        return outs

    def _label(self, id: str, time: float, tick: int, delay: int) -> None:
        kind = self._dice.choices(("once", "twice", "none", "late", "orphan"), (75, 10, 10, 3, 2))[0]
        if kind == "none":
            return
        value = self._dice.randint(0, 1)
        if kind == "late":
            delay += int(1.1 * self._wait / TICK)
        known = time + delay * TICK
        agenda = self._agenda.setdefault(tick + delay, [])
        agenda.append(self._out(LabelMessage("no-" + id if kind == "orphan" else id, value, known)))
        if kind in ("once", "twice"):
            self.sent.labels[id] = value
        if kind == "twice":
            agenda.append(self._out(LabelMessage(id, 1 - value, known)))

    def _out(self, label: LabelMessage) -> Out:
        return Out(self._names.labels, label.id.encode(), encode(label))


class OutputCounts(NamedTuple):
    """Counts of predictions by id, of examples by id and label, and of dead letters."""

    predictions: Counter[str]
    examples: Counter[tuple[str, LabelValue]]
    dead: int


class Read(Protocol):
    """A function that reads every committed record of a topic."""

    def __call__(self, topic: str) -> Iterable[Record]: ...


class _ExampleValue(msgspec.Struct):
    id: str
    label: LabelValue = ""


class Complete:
    """Condition: all predictions and examples are written, or the roles have committed all input without writing them.

    So the audit that follows names records that are lost, never records that are late. It reads each record only once,
    because there are many.
    """

    def __init__(self, log: Log, pipeline: str, sent: Sent) -> None:
        names = Names.of(pipeline)
        self._log = log
        self._inputs = [
            (f"{pipeline}.worker", names.events),
            (f"{pipeline}.joiner", names.predictions),
            (f"{pipeline}.joiner", names.labels),
        ]
        self._wanted = {names.predictions: len(sent.events), names.examples: len(sent.labels)}
        self._counted: Counter[str] = Counter()
        self._next: dict[TopicPartition, int] = {}
        self._grew = time.monotonic()

    def __call__(self) -> bool:
        before = self._counted.total()
        for topic in self._wanted:
            self._count(topic)
        if self._counted.total() > before:
            self._grew = time.monotonic()
        complete = all(self._counted[topic] >= count for topic, count in self._wanted.items())
        return complete or (time.monotonic() > self._grew + QUIET and self._all_committed())

    def _all_committed(self) -> bool:
        return all(is_drained(self._log, group, topic) for group, topic in self._inputs)

    def _count(self, topic: str) -> None:
        for at, end in self._log.end_positions(topic).items():
            if end > (start := self._next.get(at, 0)):
                self._counted[topic] += sum(map(len, self._log.scan(at, start, end)))
                self._next[at] = end


def outcome(read: Read, names: Names) -> OutputCounts:
    """Count the records in the log."""
    decode = msgspec.json.Decoder(_ExampleValue).decode
    predictions = Counter(decode(record.value or b"").id for record in read(names.predictions))
    values = map(decode, (record.value or b"" for record in read(names.examples)))
    examples = Counter((example.id, example.label) for example in values)
    return OutputCounts(predictions, examples, sum(1 for name in names for _ in read(dead_letter_topic(name))))


def audit(read: Read, names: Names, sent: Sent) -> None:
    """Check that each event has one prediction, each id with a label in time one example with its first label.

    There must be no dead letter.
    """
    counts = outcome(read, names)
    assert not (doubled := [id for id, count in counts.predictions.items() if count > 1]), f"doubled: {doubled[:5]}"
    assert not (lost := set(sent.events) - set(counts.predictions)), f"{len(lost)} lost: {sorted(lost)[:5]}"
    assert not (foreign := set(counts.predictions) - set(sent.events)), f"never sent: {sorted(foreign)[:5]}"
    assert not (doubled_pairs := [pair for pair, n in counts.examples.items() if n > 1]), (
        f"doubled: {doubled_pairs[:5]}"
    )
    wanted = set(sent.labels.items())
    assert not (missing := wanted - set(counts.examples)), f"{len(missing)} examples lost: {sorted(missing)[:5]}"
    assert not (wrong := set(counts.examples) - wanted), f"{len(wrong)} examples too many: {sorted(wrong)[:5]}"
    assert counts.dead == 0


def records(log: Log, topic: str) -> Iterator[Record]:
    """Read every committed record of a topic."""
    begin = log.begin_positions(topic)
    for at, end in log.end_positions(topic).items():
        for batch in log.scan(at, begin[at], end):
            yield from batch


def committed(log: Log, group: str, topic: str) -> int:
    """Return the number of records of a topic that a group has committed: a measure of progress."""
    return sum(position.offset for position in log.committed(group, [topic]).values())
