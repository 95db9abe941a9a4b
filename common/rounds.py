"""Rounds: server halves side by side, and what they ask for at the same time in one message.

A server half is an ordinary loop that stops at every sum. `Rounds` runs many of them in threads (models x folds) and
waits until each one alive has asked for something or has ended; then all questions leave together, in the order of the
tasks, so that a run is deterministic. The threads never compute at the same time as a message is under way.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class _Stopped(BaseException):
    """Ends a task whose run was stopped; never seen outside this file."""


@dataclass
class _Slot(Generic[Question, Answer]):
    path: tuple[int, ...]
    question: Question
    answer: Answer | Exception | None = None
    done: bool = False


class Rounds(Generic[Question, Answer]):
    """Collects questions of concurrent tasks into rounds.

    Parameters
    ----------
    send : callable
        ``send(questions)`` gives one answer (or an exception to raise in that task) a question. It runs in the thread
        that made this object; what it raises itself stops all tasks.
    """

    def __init__(self, send: Callable[[list[Question]], list[Answer | Exception]]) -> None:
        self._send = send
        self._owner = threading.get_ident()
        self._lock = threading.Condition()
        self._computing = 1  # tasks that have not asked, nor ended, nor wait for their own tasks
        self._waiting: list[_Slot[Question, Answer]] = []
        self._stopped = False
        self._place = threading.local()

    def ask(self, question: Question) -> Answer:
        """Wait for the round that answers this question."""
        slot = _Slot[Question, Answer](self._path, question)
        with self._lock:
            self._waiting.append(slot)
            self._computing -= 1
            self._wait_for(lambda: slot.done)
        if isinstance(slot.answer, Exception):
            raise slot.answer
        return slot.answer  # type: ignore[return-value]  # done, and no exception: it is the answer

    def together(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run tasks side by side; the first exception in their order is raised once all have ended."""
        if len(tasks) <= 1:
            return [task() for task in tasks]
        results: list[Result | None] = [None] * len(tasks)
        errors: list[Exception | None] = [None] * len(tasks)
        left = len(tasks)
        parent = self._path

        def run(index: int) -> None:
            nonlocal left
            self._place.path = (*parent, index)
            try:
                results[index] = tasks[index]()
            except Exception as error:  # noqa: BLE001  # handed to the caller below
                errors[index] = error
            except _Stopped:
                return
            with self._lock:
                left -= 1
                # the last to end leaves its place among the computing to the task that waits for it
                self._computing -= left > 0
                self._lock.notify_all()

        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(tasks))]
        with self._lock:
            self._computing += len(tasks) - 1
        for thread in threads:
            thread.start()
        with self._lock:
            self._wait_for(lambda: left == 0)
        for error in errors:
            if error is not None:
                raise error
        return results  # type: ignore[return-value]  # no errors: every task has left its result

    @property
    def _path(self) -> tuple[int, ...]:
        return getattr(self._place, "path", ())

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait, lock held; the owner's thread sends the round when nobody computes any more."""
        self._lock.notify_all()
        while not ready():
            if self._stopped:
                raise _Stopped
            if self._computing == 0 and self._waiting and threading.get_ident() == self._owner:
                self._round()
            else:
                self._lock.wait()

    def _round(self) -> None:
        batch = sorted(self._waiting, key=lambda slot: slot.path)
        self._waiting = []
        try:
            answers = self._send([slot.question for slot in batch])
        except BaseException:
            self._stopped = True
            self._lock.notify_all()
            raise
        for slot, answer in zip(batch, answers, strict=True):
            slot.answer, slot.done = answer, True
        self._computing += len(batch)
        self._lock.notify_all()
