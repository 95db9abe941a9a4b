"""Approvals: which studies, rosters and changed cohorts a site has agreed to, by hash, in workspace/approvals.json.

What was approved is kept beside it (workspace/approved/HASH.json, the canonical bytes the hash is of), so that a site
answers from its own copy and never from one that a message brings.
"""

import json
import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cohortium.common.declared_files import nearest, validate
from cohortium.common.errors import SiteError
from cohortium.common.ledger import Ledger
from cohortium.common.roster import Roster, parse_roster
from cohortium.common.study import OPT_INS, Study, parse_study
from cohortium.common.study_data import Keys, Sha256

FILE_NAME = "approvals.json"
FOLDER = "approved"


class Approval(Keys):
    """Who agreed to what and when (UTC, ISO 8601); `opt_ins` names the wider study keys agreed to."""

    what: Literal["study", "roster", "cohort"]
    name: str
    approved_by: str
    time: str
    opt_ins: tuple[str, ...] = ()


class Approvals(Keys):
    """Approvals by hash."""

    approved: dict[Sha256, Approval] = Field(default_factory=dict)

    def hashes(self, what: Literal["study", "roster", "cohort"]) -> tuple[str, ...]:
        """Hashes of the approved studies, rosters or cohorts, the newest last."""
        return tuple(digest for digest, approval in self.approved.items() if approval.what == what)


def read_approvals(workspace: Path) -> Approvals:
    """All approvals of a site; none where nothing was approved yet."""
    path = workspace / FILE_NAME
    try:
        return validate(Approvals, json.loads(path.read_bytes()), source=str(path), error=SiteError)
    except FileNotFoundError:
        return Approvals()
    except (ValueError, RecursionError):
        raise SiteError(f"approvals {path}: is not JSON; restore it, or remove it and approve again") from None
    except OSError as broken:
        raise SiteError(f"approvals {path}: cannot be read ({broken.strerror}); check its permissions") from None


def approve_study(
    workspace: Path, study: Study, *, approved_by: str, time: datetime, opt_ins: Iterable[str] = ()
) -> Approval:
    """Agree to a study, and to the wider keys it needs.

    Raises
    ------
    SiteError
        The study needs an opt-in that was not given, or one was given that does not exist.
    """
    given = tuple(sorted(set(opt_ins)))
    if unknown := [key for key in given if key not in OPT_INS]:
        raise SiteError(f"opt-in {unknown[0]!r} does not exist; {nearest(unknown[0], OPT_INS)}")
    if lacking := [key for key in study.opt_ins if key not in given]:
        wide = ", ".join(lacking)
        raise SiteError(f"study {study.study.name!r} lets out more than by default: opt into {wide}, or do not approve")
    approval = Approval(
        what="study", name=study.study.name, approved_by=approved_by, time=time.isoformat(), opt_ins=given
    )
    _record(workspace, study.hash, study.canonical, approval)
    return approval


def approve_roster(workspace: Path, roster: Roster, *, approved_by: str, time: datetime) -> Approval:
    """Agree to sum together with the sites of a roster."""
    approval = Approval(what="roster", name=", ".join(roster.names), approved_by=approved_by, time=time.isoformat())
    _record(workspace, roster.hash, roster.canonical, approval)
    return approval


def approve_cohort(workspace: Path, digest: str, name: str, *, approved_by: str, time: datetime) -> Approval:
    """Agree to sum the patients of a part beside others of it that were summed before."""
    approval = Approval(what="cohort", name=name, approved_by=approved_by, time=time.isoformat())
    _record(workspace, digest, json.dumps({"cohort": name}).encode(), approval)
    return approval


def approved_study(workspace: Path, digest: str) -> tuple[Study, Approval]:
    """The site's own copy of an approved study, and its approval.

    Raises
    ------
    SiteError
        This site has not approved it, or the copy no longer has that hash.
    """
    approval = _required(workspace, digest, "study")
    study = parse_study(_stored(workspace, digest), source=f"approved study {digest[:12]}", folder=workspace)
    if study.hash != digest:
        raise SiteError(f"approved study {digest[:12]}: the stored copy has another hash; approve the study again")
    if lacking := [key for key in study.opt_ins if key not in approval.opt_ins]:
        raise SiteError(f"approved study {digest[:12]}: lacks the opt-in {', '.join(lacking)}; approve the study again")
    return study, approval


def approved_roster(workspace: Path, digest: str) -> tuple[Roster, Approval]:
    """The site's own copy of an approved roster, and its approval; errors as `approved_study`."""
    approval = _required(workspace, digest, "roster")
    roster = parse_roster(_stored(workspace, digest), source=f"approved roster {digest[:12]}")
    if roster.hash != digest:
        raise SiteError(f"approved roster {digest[:12]}: the stored copy has another hash; approve the roster again")
    return roster, approval


def _required(workspace: Path, digest: str, what: Literal["study", "roster"]) -> Approval:
    approval = read_approvals(workspace).approved.get(digest)
    if approval is None or approval.what != what:
        raise SiteError(f"{what} {digest[:12]} is not approved at this site; read it and run cohortium site approve")
    return approval


def _stored(workspace: Path, digest: str) -> dict[str, Any]:
    path = workspace / FOLDER / f"{digest}.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise SiteError(f"approved copy {path}: cannot be read; approve it again") from None


def _record(workspace: Path, digest: str, canonical: bytes, approval: Approval) -> None:
    # the copy first: an approval without its copy would be refused, a copy without approval is nothing
    _write(workspace / FOLDER / f"{digest}.json", canonical)
    # the line before what it is about, as for a message: no approval is in force that the ledger does not know
    _enter(workspace, digest, approval)
    others = {key: value for key, value in read_approvals(workspace).approved.items() if key != digest}
    known = {**others, digest: approval}  # approved again: it is the newest now
    text = json.dumps(Approvals(approved=known).model_dump(mode="json"), indent=2)
    _write(workspace / FILE_NAME, text.encode())


def _enter(workspace: Path, digest: str, approval: Approval) -> None:
    """The ledger's line of an approval, under the hash of what was approved."""
    entry = {
        "kind": "approval",
        "what": approval.what,
        approval.what: digest,
        "name": approval.name,
        "opt_ins": list(approval.opt_ins),
        "approved_by": [approval.approved_by],
        "time": approval.time,
        "outcome": "approved",
    }
    try:
        Ledger(workspace).append(entry)
    except OSError as broken:
        raise SiteError(f"ledger in {workspace}: cannot be written ({broken.strerror}); check permissions") from None


def _write(path: Path, content: bytes) -> None:
    """Write atomically, and on the disk before anything relies on it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".draft{os.getpid()}")
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as broken:
        raise SiteError(f"workspace file {path}: cannot be written ({broken.strerror}); check permissions") from None
