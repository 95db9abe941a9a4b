"""Studies on prepared tables made in the test: everything after `site prepare`, without images."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cohortium.common.ledger import FILE, Ledger
from cohortium.common.roster import roster_of
from cohortium.common.study import load_study
from cohortium.common.table import Table
from cohortium.common.transport import Transport
from cohortium.server.run import run_study
from cohortium.simulation import engines
from cohortium.sites.approvals import approve_roster, approve_study
from cohortium.sites.identity import public_hex, site_identity
from cohortium.sites.prepared import FLOW, TABLE, prepared_folder


def run_on_tables(
    place: Path,
    study_text: str,
    tables: Mapping[str, Table],
    *,
    wrap: Callable[[Transport], Transport] = lambda transport: transport,
    resume: bool = False,
) -> dict[str, Any]:
    """Run a study in process; OUT is ``place / "out"``, `wrap` may put a fault into the transport."""
    (place / "study.toml").write_text(study_text)
    study = load_study(place)
    workspaces = {site: place / "sites" / site for site in tables}
    roster = roster_of({site: public_hex(site_identity(workspace)) for site, workspace in workspaces.items()})
    roster.write(place / "roster.toml")
    now = datetime.now(UTC)
    for site, workspace in workspaces.items():
        (workspace / "site.toml").write_text(f'[site]\nname = "{site}"\n[data]\npatients = "none.csv"\n')
        approve_study(workspace, study, approved_by="test", time=now, opt_ins=study.opt_ins)
        approve_roster(workspace, roster, approved_by="test", time=now)
        folder = prepared_folder(workspace, study.hash)
        if not (folder / TABLE).exists():
            tables[site].write(folder / TABLE)
        (folder / FLOW).write_text(json.dumps({"given": len(tables[site]), "excluded": {}, "used": len(tables[site])}))
    return engines.run(
        "in-process",
        {site: (workspace / "site.toml", workspace) for site, workspace in workspaces.items()},
        lambda transport: run_study(
            place / "study.toml",
            place / "out",
            transport=wrap(transport),
            engine="in-process",
            roster_file=place / "roster.toml",
            resume=resume,
        ),
    )


def sums_sent(folder: Path) -> Counter[str]:
    """How often each statistic was summed, by the ledgers of the sites below a folder."""
    entries = [entry for ledger in folder.rglob(FILE) for entry in Ledger(ledger.parent).entries()]
    assert entries
    return Counter(name for entry in entries if entry["kind"] == "sum" for name in entry["statistics"])
