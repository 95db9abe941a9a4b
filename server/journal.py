"""Journal: what a run has learned so far, on the coordinator's disk, so that a killed run can go on.

Server halves are deterministic functions of the totals they are given. So a checkpoint is simply every outcome in
order: a resumed run starts from the beginning, is handed the recorded outcomes without asking any site, and goes live
where the record ends. Nothing of an algorithm's inner state has to be saved (docs/decisions/0002).

One thing is kept before its outcome is known: over which sites a round of a network is about to be opened. The sites
open it over these only, for good; a coordinator that was killed before it had the total must ask for the same.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import StudyError, WireError

_SURVIVORS = ".survivors"


class Journal:
    """Outcomes of a run in the order they were learned.

    Parameters
    ----------
    folder : Path
        ``OUT/run``; entries go to ``journal/``, the log of sums (names, sites, sizes; no values) to ``sums.jsonl``.
    resume : bool
        Replay what is there. Otherwise the folder must hold no run.

    Raises
    ------
    StudyError
        The folder already holds a run and `resume` is false.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self.folder = folder / "journal"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "sums.jsonl"
        for draft in self.folder.glob("*.draft"):
            draft.unlink()  # a write that was cut short; its outcome was never used
        self._recorded = sorted(self.folder.glob("*.coh"))
        if self._recorded and not resume:
            raise StudyError(
                f"{folder.parent} already holds a run; add --resume to go on with it, or choose another --out"
            )
        named = [unpack(path.read_bytes()) for path in self.folder.glob(f"*{_SURVIVORS}")]
        self._survivors = {tuple(entry["slot"]): tuple(entry["sites"]) for entry in named}
        self._next = 0
        self._log.unlink(missing_ok=True)

    @property
    def replaying(self) -> bool:
        """True while outcomes come from the record."""
        return self._next < len(self._recorded)

    def replay(self, digest: str) -> dict[str, Any] | None:
        """The recorded outcome of this question, or None where the record has ended.

        Raises
        ------
        StudyError
            The recorded run asked something else here: another study, other versions, other site files.
        """
        if not self.replaying:
            return None
        path = self._recorded[self._next]
        try:
            entry = unpack(path.read_bytes())
        except WireError as broken:
            raise StudyError(
                f"{path} is damaged ({broken}); delete it and all later entries, then --resume"
            ) from broken
        if entry["digest"] != digest:
            raise StudyError(
                f"the run in {self.folder.parent.parent} was made by another study, seed or version (it differs at "
                f"entry {self._next + 1}); run with the same ones or choose another --out"
            )
        self._next += 1
        self._append(entry["log"])
        return entry["outcome"]

    def record(self, digest: str, outcome: dict[str, Any], log: dict[str, Any]) -> None:
        """Keep an outcome before anything is computed from it.

        `log` is the line of the log of sums: names and sizes only.
        """
        path = self._write(".coh", {"digest": digest, "outcome": outcome, "log": log})
        self._recorded.append(path)
        self._next += 1
        self._append(log)

    def survivors(self, slot: Sequence[str | int]) -> tuple[str, ...] | None:
        """The sites that a round was to be opened over, if it came so far; it cannot be opened over others."""
        return self._survivors.get(tuple(slot))

    def name_survivors(self, slot: Sequence[str | int], sites: Sequence[str]) -> None:
        """Keep the sites that a round will be opened over, before any of them is asked to open it."""
        self._survivors[tuple(slot)] = tuple(sites)
        self._write(_SURVIVORS, {"slot": list(slot), "sites": list(sites)})

    def _write(self, suffix: str, content: dict[str, Any]) -> Path:
        """A file of the next entry, whole on disk or not there."""
        path = self.folder / f"{self._next + 1:06d}{suffix}"
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(pack(content))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # a new name must survive a power failure as its content does
        finally:
            os.close(folder)
        return path

    def _append(self, log: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(log, sort_keys=True) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []
