"""Accounts: what each approved study has cost a site in released numbers and in privacy, for the site's own eyes."""

from pathlib import Path
from typing import Any

from cohortium.client import meter
from cohortium.common import privacy_accountant
from cohortium.sites.approvals import approved_study, read_approvals
from cohortium.sites.site_file import Site


def accounts(workspace: Path) -> list[dict[str, Any]]:
    """One entry an approved study.

    Returns
    -------
    list of {"study", "name", "released_numbers", "privacy"}
        ``released_numbers``: {"numbers", "limit"}, None where the study sets no limit and nothing is counted;
        ``privacy``: {"epsilon", "approved", "delta", "rho"}, epsilon as spent; None without [privacy.dp].
    """
    found = []
    for digest in read_approvals(workspace).hashes("study"):
        study, _ = approved_study(workspace, digest)
        limit, dp = study.privacy.released_numbers, study.privacy.dp
        entry: dict[str, Any] = {"study": digest, "name": study.study.name, "released_numbers": None, "privacy": None}
        if limit is not None:
            counted = (workspace / meter.FILE).exists()
            numbers = meter.Meter(workspace, digest, limit).released() if counted else 0
            entry["released_numbers"] = {"numbers": numbers, "limit": limit}
        if dp is not None:
            entry["privacy"] = _spent(workspace, dp.epsilon, dp.delta, digest)
        found.append(entry)
    return found


def account_of_all(workspace: Path, site: Site) -> dict[str, Any] | None:
    """What all studies together have cost in privacy, beside the limit of site.toml; None if it sets none."""
    limit = site.site.epsilon
    return None if limit is None else _spent(workspace, limit, site.site.delta, None)


def _spent(workspace: Path, approved: float, delta: float, study: str | None) -> dict[str, float]:
    kept = (workspace / privacy_accountant.FILE).exists()
    rho = privacy_accountant.Accountant(workspace).spent(study) if kept else 0.0
    return {"epsilon": privacy_accountant.epsilon(rho, delta), "approved": approved, "delta": delta, "rho": rho}
