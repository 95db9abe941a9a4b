"""Standing: what one site is in one run of one study: its table, its rules, its keys, and what was published to it.

A message may be answered by a fresh process, so everything that must last is on the site's disk; what is kept in memory
between messages (derived columns) can be made again.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohortium.client.guard import Guard
from cohortium.client.meter import Meter
from cohortium.common.codec import unpack
from cohortium.common.errors import SiteError, SumRefused
from cohortium.common.roster import Roster
from cohortium.common.secure_sum import SiteSums
from cohortium.common.study import Study
from cohortium.common.sum_store import SumStore
from cohortium.common.table import Table
from cohortium.sites.approvals import approved_roster, approved_study, read_approvals
from cohortium.sites.flow import Flow
from cohortium.sites.identity import site_identity
from cohortium.sites.prepared import FEATURES, FLOW, TABLE, prepared_folder
from cohortium.sites.site_file import Site, load_site
from cohortium.strategies import views

DIGEST = re.compile(r"[0-9a-f]{64}")


class Objects(Mapping[str, Mapping[str, Any]]):
    """What the coordinator has published in this run (fitted models, harmonisations), by digest, on the site's disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Mapping[str, Any]] = {}

    def __getitem__(self, digest: str) -> Mapping[str, Any]:
        if digest not in self._read:
            # the digest comes from the coordinator: it must not become another path
            path = self._folder / digest if DIGEST.fullmatch(digest) else None
            if path is None or not path.is_file():
                raise SumRefused("published object", "this site does not have it; resume the run to have it sent again")
            self._read[digest] = unpack(path.read_bytes())
        return self._read[digest]

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self._folder.iterdir()) if self._folder.is_dir() else iter(())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def install(self, data: bytes) -> None:
        """Keep one object under the digest of its bytes."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / digest
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".draft")
            draft.write_bytes(data)
            draft.replace(path)


@dataclass
class Standing:
    """One site in one run; made by `open_standing`."""

    site: Site
    workspace: Path
    study: Study
    roster: Roster
    run: str
    context: views.Context
    guard: Guard
    meter: Meter
    flow: Flow
    made_by: dict[str, Any]
    sums: SiteSums
    approvals: tuple[str, ...]
    objects: Objects = field(repr=False)

    def install(self, objects: list[bytes]) -> None:
        """Keep published objects that came with a request."""
        for data in objects:
            self.objects.install(data)

    def forget_run(self) -> None:
        """Drop what only this run needed."""
        shutil.rmtree(_run_folder(self.workspace, self.run), ignore_errors=True)
        _OPEN.pop(self.workspace, None)


_OPEN: dict[Path, tuple[tuple[Any, ...], Standing]] = {}
"""The last standing of each workspace in this process; only a cache."""


def open_standing(site_file: Path, workspace: Path, study_hash: str, run: str) -> Standing:
    """The site's standing in a run.

    Raises
    ------
    SumRefused
        The study or a roster is not approved here, or the data are not prepared; says what to do.
    """
    if not DIGEST.fullmatch(study_hash):
        raise SumRefused("study", "a study is named by its hash, 64 hexadecimal digits")
    table_file = prepared_folder(workspace, study_hash) / TABLE
    key = (site_file, study_hash, run, table_file.stat().st_mtime_ns if table_file.exists() else None)
    known = _OPEN.get(workspace)
    if known is not None and known[0] == key:
        return known[1]
    try:
        standing = _open(site_file, workspace, study_hash, run)
    except SiteError as problem:
        # what is not approved or prepared may be told; a text that names the site's own files may not
        told = str(problem) if os.sep not in str(problem) else "its own files need attention; run cohortium site check"
        raise SumRefused("site set-up", told) from problem
    _OPEN[workspace] = (key, standing)
    return standing


def _open(site_file: Path, workspace: Path, study_hash: str, run: str) -> Standing:
    site = load_site(site_file).with_workspace(workspace)
    study, approval = approved_study(workspace, study_hash)
    rosters = read_approvals(workspace).hashes("roster")
    if not rosters:
        raise SiteError("no roster is approved at this site; run cohortium site approve --roster roster.toml")
    roster, roster_approval = approved_roster(workspace, rosters[-1])
    folder = prepared_folder(workspace, study_hash)
    if not (folder / TABLE).exists():
        raise SiteError("the data are not prepared for this study; run cohortium site prepare")
    declared = json.loads((folder / FLOW).read_text())
    objects = Objects(_run_folder(workspace, run) / "objects")
    table = Table.read(folder / TABLE)
    return Standing(
        site=site,
        workspace=workspace,
        study=study,
        roster=roster,
        run=run,
        context=views.Context(table=table, study=study, site=site.name, objects=objects),
        guard=Guard(study, site.name, site.site.allow),
        meter=Meter(workspace, study.hash, study.privacy.released_numbers),
        flow=Flow(given=declared["given"], excluded=declared["excluded"], used=declared["used"]),
        made_by=json.loads((folder / FEATURES).read_text()) if (folder / FEATURES).exists() else {},
        sums=SiteSums(
            site=site.name,
            identity=site_identity(workspace),
            pins={name: bytes.fromhex(key) for name, key in roster.identities.items()},
            minimum_sites=study.privacy.minimum_sites,
            store=SumStore(workspace, runtime_folder(workspace)),
        ),
        approvals=(approval.approved_by, roster_approval.approved_by),
        objects=objects,
    )


def runtime_folder(workspace: Path) -> Path:
    """Where a run's key lies while the run lasts: in memory if the machine has such a folder, never in a backup.

    A user's runtime directory (XDG base directory specification), else /dev/shm, else the workspace.
    """
    homes = [Path(path) for path in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm") if path]
    for home in homes:
        if home.is_dir() and os.access(home, os.W_OK):
            name = hashlib.sha256(str(workspace.absolute()).encode()).hexdigest()[:16]
            folder = home / f"cohortium-{os.getuid()}" / name
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            if folder.parent.stat().st_uid == os.getuid() and not folder.parent.stat().st_mode & 0o077:
                return folder
    return workspace / "runtime"


def _run_folder(workspace: Path, run: str) -> Path:
    if not (run.isascii() and run.isalnum() and len(run) <= 64):
        raise SumRefused("run", "a run's name is at most 64 letters and digits")
    return workspace / "runs" / run
