"""Guard: the rules that every number must pass before it leaves a site, whatever the coordinator asks.

What it stands on is the site's own: the study and the roster that the site approved, its allow list, its table. A
refusal says which rule and what would satisfy it, and holds no value of a patient.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from cohortium.client import cells, disclosure
from cohortium.client.left_out import COHORT, check_events, check_left_out, check_minimum
from cohortium.client.subsets import check_named, check_scored, check_subset
from cohortium.client.terms import check_terms
from cohortium.common.errors import SumRefused
from cohortium.common.study import Study
from cohortium.strategies import views


class Guard:
    """One site's rules for one approved study.

    Parameters
    ----------
    study : Study
        As approved at this site, never as sent.
    site : str
    allow : tuple of str
        Patterns of the statistics that may leave (site.toml, ``allow``).
    """

    def __init__(self, study: Study, site: str, allow: tuple[str, ...]) -> None:
        self.study = study
        self.site = site
        self.allow = allow

    def admit(self, statistic: str, view: Mapping[str, Any], context: views.Context) -> None:
        """Check what is asked before it is computed.

        Raises
        ------
        SumRefused
            Not allowed here; a sum over too few sites; columns that the study does not use so; a subgroup with too few
            patients at this site.
        """
        self._allowed(statistic)
        part = view["rows"]["part"]
        holders = self.study.sites_of(part)
        least = self.study.privacy.minimum_sites
        if len(holders) < least:
            raise SumRefused(
                statistic,
                f"the {part} part lies at {len(holders)} of at least {least} sites, so a sum over it would be a site's "
                "own data; ask for finished figures instead",
            )
        check_left_out(self.study, statistic, view)
        check_terms(self.study, statistic, view, context.objects if context else {})
        if view["rows"].get("where"):
            check_scored(statistic, view)
            check_subset(self.study, view["rows"], context)

    def _allowed(self, statistic: str) -> None:
        if not any(fnmatchcase(statistic, pattern) for pattern in self.allow):
            raise SumRefused(
                statistic, f"not on the allow list of site {self.site}; the site can add it to allow in its site.toml"
            )

    def question(
        self, statistic: str, view: Mapping[str, Any], parameters: Mapping[str, Any], rows: NamedTuple
    ) -> None:
        """Check what is asked against the patients it is asked of, before it is computed.

        Parameters
        ----------
        rows : NamedTuple
            What the view makes of this site's table.

        Raises
        ------
        SumRefused
            The question is finer than the study allows, or by groups of which one has a few missing values; a sum that
            goes in the clear is about too few patients.
        """
        disclosure.check(self.study, statistic, view, parameters, rows)
        check_minimum(self.study, statistic, parameters)
        least = self.study.privacy.minimum_count
        cells.check_missing(statistic, view, rows, least)
        if not self.study.privacy.secure_aggregation and 0 < len(rows[0]) < least:
            raise SumRefused(
                statistic, f"its numbers go in the clear, and a site has fewer than minimum_count = {least} patients"
            )

    def survivors(self, sites: Any) -> None:
        """Check for which sites a sum of network training is opened.

        Raises
        ------
        SumRefused
            One that the study's quorum names is not among them.
        """
        absent = [site for site in self.study.federation.quorum if not isinstance(sites, list) or site not in sites]
        if absent:
            raise SumRefused("quorum", f"the study demands {', '.join(absent)} in every round of a network; ask again")

    def cells(self, statistic: str, share: NamedTuple) -> None:
        """Check the computed cells of a Table 1 statistic.

        Raises
        ------
        SumRefused
            A non-empty cell of this site is below minimum_count.
        """
        cells.check_counts(statistic, share, self.study.privacy.minimum_count)

    def finished(self, what: str, rows: Mapping[str, Any], context: views.Context) -> None:
        """Check the cohort of a figure that this site computes to the end and sends as such.

        Raises
        ------
        SumRefused
            Not allowed here; a part that enough sites hold, so that only its sums may leave (but for ``by_site``); a
            subgroup that the study does not name; a cohort of fewer than minimum_count patients, or, of a part that
            enough sites hold, of fewer with the event (of a binary endpoint, or without).
        """
        self._allowed(what)
        least = self.study.privacy.minimum_count
        if self.study.hides_its_sites(rows["part"]) and what == COHORT and self.study.validation.by_site:
            if rows.get("where"):
                raise SumRefused(what, "figures by site are those of whole cohorts; ask for sums over a subgroup")
            check_events(self.study, what, rows, context)
        elif self.study.hides_its_sites(rows["part"]):
            raise SumRefused(
                what,
                f"the {rows['part']} part lies at enough sites for sums, so no figures of one site leave; ask for sums",
            )
        if rows.get("where"):
            check_named(self.study, rows["where"])
        patients = int(views.selected(context, rows).sum())
        if patients < least:
            raise SumRefused(what, f"the cohort has fewer than minimum_count = {least} patients at its site")
        if rows.get("where"):
            check_subset(self.study, rows, context)

    def table_entry(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """A finished entry of Table 1, or the same entry withheld because a cell of it is too small."""
        least = self.study.privacy.minimum_count
        for group in entry.get("groups", {}).values():
            counts = group["levels"].values() if "levels" in group else (group["n"],)
            if any(isinstance(count, int) and 0 < count < least for count in counts):
                named = {key: entry[key] for key in ("variable", "kind", "cohort")}
                return named | {"withheld": f"a cell has fewer than minimum_count = {least} patients"}
        return entry
