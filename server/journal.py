"""Journal: what a run has learned so far, on the coordinator's disk, so that a killed run can go on.

Server halves are deterministic functions of the totals they are given. So a checkpoint is simply every outcome in
order: a resumed run starts from the beginning, is handed the recorded outcomes without asking any site, and goes live
where the record ends. Nothing of an algorithm's inner state has to be saved (docs/decisions/0002).
"""

import json
import os
from pathlib import Path
from typing import Any

from cohortium.common.codec import pack, unpack
from cohortium.common.errors import StudyError, WireError


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
        path = self.folder / f"{self._next + 1:06d}.coh"
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(pack({"digest": digest, "outcome": outcome, "log": log}))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        self._recorded.append(path)
        self._next += 1
        self._append(log)

    def _append(self, log: dict[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(log, sort_keys=True) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []
