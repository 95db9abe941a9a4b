"""Progress: what long work is doing, how much of it is done and how long it will still take, for whoever waits.

    progress = Progress()
    with progress.stage("prepare site A", total=400) as step:
        for case in cases:
            ...
            step.advance()

A terminal shows bars that move; a log file gets a plain line when a stage begins, at most one every ten seconds while
it goes on, and one when it ends; ``quiet`` leaves only the last of these. Work that may run without anyone watching
takes a `NullProgress`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol, TextIO

SECONDS_BETWEEN_LINES = 10.0


class Step:
    """One stage under way.

    Attributes
    ----------
    name : str
    total : int or None
        Number of things to do; None where it cannot be known.
    done : int
        Number of things done so far.
    note : str
        What is being done now, a few words (``"round 12"``).
    """

    def __init__(self, name: str, total: int | None, changed: Callable[["Step"], None], clock: Callable[[], float]):
        self.name = name
        self.total = total
        self.done = 0
        self.note = ""
        self._changed = changed
        self._clock = clock
        self._began = clock()
        self._lock = Lock()

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Say that `count` more things are done; may be called from several threads."""
        with self._lock:
            self.done += count
            self.note = note or self.note
            self._changed(self)

    @property
    def seconds(self) -> float:
        """Time since the stage began."""
        return self._clock() - self._began

    @property
    def seconds_left(self) -> float | None:
        """Time the rest will take at the pace so far; None while that cannot be told."""
        if self.total is None or not 0 < self.done <= self.total:
            return None
        return self.seconds / self.done * (self.total - self.done)


class Display(Protocol):
    """Where stages are shown."""

    def opened(self, step: Step) -> None: ...

    def changed(self, step: Step) -> None: ...

    def closed(self, step: Step, *, ended_well: bool) -> None: ...


class NullProgress:
    """Progress that nobody watches; also the interface that `Progress` fills."""

    def __init__(self, *displays: Display, clock: Callable[[], float] = time.monotonic) -> None:
        self._displays = displays
        self._clock = clock

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Show a stage while the block runs; stages may lie inside one another and side by side."""
        step = Step(name, total, self._changed, self._clock)
        for display in self._displays:
            display.opened(step)
        ended_well = False
        try:
            yield step
            ended_well = True
        finally:
            for display in self._displays:
                display.closed(step, ended_well=ended_well)

    def _changed(self, step: Step) -> None:
        for display in self._displays:
            display.changed(step)


class Progress(NullProgress):
    """Progress on a stream: bars on a terminal, plain lines elsewhere.

    Parameters
    ----------
    quiet : bool
        Only one plain line a finished stage.
    stream : text file, optional
        Standard error when not given, so that a command's own output can be piped.
    """

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        shown_on = sys.stderr if stream is None else stream
        bars = shown_on.isatty() and not quiet
        super().__init__(TerminalBars(shown_on) if bars else PlainLines(shown_on, quiet=quiet), clock=clock)


class PlainLines:
    """A line when a stage begins, one now and then, one when it ends."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._spoke_at: dict[Step, float] = {}

    def opened(self, step: Step) -> None:
        self._spoke_at[step] = 0.0
        if not self._quiet:
            self._line(f"{step.name}: begins" + (f", {step.total} to do" if step.total else ""))

    def changed(self, step: Step) -> None:
        if self._quiet or step.seconds - self._spoke_at[step] < SECONDS_BETWEEN_LINES:
            return
        self._spoke_at[step] = step.seconds
        left = step.seconds_left
        self._line(
            f"{step.name}: {_count(step)}"
            + (f", {_duration(left)} left" if left is not None else "")
            + (f", {step.note}" if step.note else "")
        )

    def closed(self, step: Step, *, ended_well: bool) -> None:
        del self._spoke_at[step]
        self._line(_closing_line(step, ended_well=ended_well))

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class TerminalBars:
    """A bar a stage that is under way, and a line a stage that has ended, by rich."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self._tasks: dict[Step, Any] = {}
        self._bars: Any = None

    def opened(self, step: Step) -> None:
        with self._lock:
            if not self._tasks:
                self._bars = _rich_bars(self._stream)
                self._bars.start()
            self._tasks[step] = self._bars.add_task(step.name, total=step.total, note="")

    def changed(self, step: Step) -> None:
        self._bars.update(self._tasks[step], completed=step.done, note=step.note)

    def closed(self, step: Step, *, ended_well: bool) -> None:
        with self._lock:
            self._bars.remove_task(self._tasks.pop(step))
            self._bars.console.print(_closing_line(step, ended_well=ended_well), highlight=False, markup=False)
            if not self._tasks:
                self._bars.stop()


def _rich_bars(stream: TextIO) -> Any:
    # rich costs 60 ms to import; `cohortium --help` does not need it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=Console(file=stream),
        transient=True,
    )


def _closing_line(step: Step, *, ended_well: bool) -> str:
    count = f"{_count(step)}, " if step.total is not None or step.done else ""
    return f"{step.name}: {count}{'done in' if ended_well else 'stopped after'} {_duration(step.seconds)}"


def _count(step: Step) -> str:
    return f"{step.done}" if step.total is None else f"{step.done} of {step.total}"


def _duration(seconds: float) -> str:
    """Write a duration for a reader.

    >>> _duration(7.31), _duration(95), _duration(3725)
    ('7.3 s', '1 min 35 s', '1 h 02 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = int(seconds + 0.5) // 60
    if minutes < 60:
        return f"{minutes} min {int(seconds + 0.5) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
