"""Dispatch: cases, and parts of those that take long, to the processes of a site.

A process that has nothing to do takes a part of a case that was begun, and begins the next case only if there is none.
So no more cases are under way than there are processes, and one alone keeps all of them busy.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cohortium.client.imaging.case import CaseFiles, case_key
from cohortium.client.imaging.parts import Part, begin, discard, finish, measure_part
from cohortium.client.imaging.processes import Here, Processes
from cohortium.client.imaging.recipe import Recipe
from cohortium.client.imaging.store import Store
from cohortium.client.imaging.workers import DIED, FAILURES, answer
from cohortium.common.errors import CaseError, SiteError
from cohortium.common.progress import Step
from cohortium.sites.flow import Exclusion


class Done(NamedTuple):
    """A case with its name among the finished ones, or why it cannot be used."""

    patient_id: str
    found: str | Exclusion
    computed: bool  # measured now


@dataclass
class _Case:
    """A case under way."""

    files: CaseFiles
    key: str
    parts: list[Part] = field(default_factory=list)  # all that `begin` left
    left: deque[Part] = field(default_factory=deque)  # those that no process has yet
    running: int = 0
    failed: list[tuple[int, Exclusion]] = field(default_factory=list)

    def take(self, number: int, found: Exclusion | list[Part] | None) -> None:
        """What came of one call; with the first failure the rest is not measured."""
        self.running -= 1
        if isinstance(found, Exclusion):
            self.failed.append((number, found))
        elif found:
            self.parts = found
            self.left.extend(found)
        if self.failed:
            self.left.clear()

    def end(self, recipe: Recipe, store: Store) -> Done:
        """Of several failures the first in the order of the parts, whichever process was done first."""
        if self.failed:
            discard(store, self.key)
            return Done(self.files.patient_id, min(self.failed)[1], computed=True)
        if self.parts:
            finish(recipe, store, self.key)
        return Done(self.files.patient_id, self.key, computed=True)


def measure_cases(
    cases: list[CaseFiles], recipe: Recipe, store: Store, pool: Processes | None, step: Step
) -> Iterator[Done]:
    """Measure cases as they come; the largest begin first.

    Raises
    ------
    SiteError
        A disk or right is missing, or a process was ended from outside.
    """
    workers = pool or Here()
    waiting = deque(sorted(cases, key=_bytes, reverse=True))
    under_way: list[_Case] = []
    running: dict[Future, tuple[_Case, int]] = {}

    def submit(case: _Case, number: int, do: Callable[..., Any], what: Any) -> None:
        call = workers.submit(_usable, case.files.patient_id, do, what, recipe, store, case.key)
        running[call] = case, number
        case.running += 1

    try:
        while waiting or under_way:
            ready = next((case for case in under_way if case.left), None)
            # One call more than processes, so that none waits for this one
            if len(running) > workers.jobs or not (ready or waiting):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    case, number = running.pop(future)
                    case.take(number, answer(future, case.files.patient_id))
                    if case.parts:
                        measured = len(case.parts) - len(case.left) - case.running
                        step.advance(0, note=f"{measured} of {len(case.parts)} parts of a large case")
                    if not (case.running or case.left):
                        under_way.remove(case)
                        yield case.end(recipe, store)
            elif ready:
                part = ready.left.popleft()
                submit(ready, part.number, measure_part, part)
            else:
                files = waiting.popleft()
                try:
                    key = case_key(files, recipe)
                except CaseError as unusable:
                    yield Done(files.patient_id, Exclusion(files.patient_id, *_why(unusable)), computed=False)
                    continue
                if store.get(key) is not None:
                    yield Done(files.patient_id, key, computed=False)
                    continue
                under_way.append(_Case(files, key))
                submit(under_way[-1], -1, begin, files)
    except BrokenProcessPool as died:
        raise SiteError(DIED) from died
    finally:
        for future in running:
            future.cancel()


def _usable(patient_id: str, do: Callable[..., Any], *given: Any) -> Any:
    """What `do` gives. It runs in a process of its own, so an unusable case comes back as a plain value."""
    try:
        return do(*given)
    except CaseError as unusable:
        return Exclusion(patient_id, *_why(unusable))
    except FAILURES as failed:
        # One odd case must not cost the others their night; the site sees what it was
        return Exclusion(patient_id, "features cannot be computed", f"{type(failed).__name__}: {failed}")


def _why(unusable: CaseError) -> tuple[str, str]:
    return unusable.reason, unusable.detail


def _bytes(files: CaseFiles) -> int:
    """Size of a case's images; 0 for what is missing, which `fingerprint` will report."""
    try:
        return sum(path.stat().st_size for path in files.images.values())
    except OSError:
        return 0
