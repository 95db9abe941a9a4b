"""Describe: Table 1 of every part, over sums or from the one site that holds it."""

from typing import Any

from cohortium.server.federation import StudyFederation
from cohortium.strategies.describe import describe_part


def describe(federation: StudyFederation) -> list[dict[str, Any]]:
    """Table 1 of the parts that enough sites hold; the others come with their site's finished figures."""
    study = federation.study
    if not study.variable:
        return []
    parts = [part for part in ("train", "internal", "external") if study.hides_its_sites(part)]
    found = federation.together([lambda part=part: describe_part(federation.rows, study, part) for part in parts])
    return [entry for entries in found for entry in entries]
