"""Flow: how many patients a site was given, how many it excluded for which reason, and how many it uses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

OTHER = "other"


class Exclusion(NamedTuple):
    """A patient who is not used. `reason` is a fixed phrase without a value; `detail` stays at the site."""

    patient_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Flow:
    """Counts of a site: ``given = sum(excluded) + used``."""

    given: int
    excluded: dict[str, int]
    used: int

    @classmethod
    def of(cls, used: int, exclusions: Iterable[Exclusion]) -> "Flow":
        """Count; the most frequent reason comes first."""
        reasons = Counter(exclusion.reason for exclusion in exclusions)
        excluded = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
        return cls(given=used + sum(excluded.values()), excluded=excluded, used=used)

    def declared(self, minimum_count: int) -> "Flow":
        """The flow as it may leave the site: reasons under `minimum_count` are merged into ``other``.

        While ``other`` itself is under the minimum it takes in the smallest reason that is left.
        """
        kept = {reason: n for reason, n in self.excluded.items() if n >= minimum_count and reason != OTHER}
        other = sum(self.excluded.values()) - sum(kept.values())
        while 0 < other < minimum_count and kept:
            smallest = min(kept, key=lambda reason: (kept[reason], reason))
            other += kept.pop(smallest)
        return Flow(self.given, kept | ({OTHER: other} if other else {}), self.used)

    def plain(self) -> dict[str, Any]:
        """As results.json writes it."""
        return {"given": self.given, "excluded": dict(self.excluded), "used": self.used}
