"""Recompute table: how far published figures lie from their references, by kind of figure, for `recompute`."""

import numpy as np

EXACT = 1e-9


class Table:
    """Differences by kind of figure; the worst is the one that uses most of what it is allowed."""

    def __init__(self):
        self.rows, self.withheld, self.undefined, self.unseen = {}, 0, 0, 0

    def compare(self, kind, where, ours, reference, allowed=EXACT):
        """Hold one figure, or list of figures, against its reference."""
        if isinstance(ours, dict) and "withheld" in ours:
            self.withheld += 1
            return
        if (isinstance(ours, dict) and "undefined" in ours) or ours is None or reference is None:
            missing = isinstance(ours, dict) and "undefined" in ours and reference is None
            self.undefined += missing
            self.note(kind, where, 0.0 if missing else np.inf, allowed, 0)
            return
        a, b = np.asarray(ours, float), np.asarray(reference, float)
        if a.shape != b.shape:
            self.note(kind, where, np.inf, allowed, 1)
            return
        known = ~np.isnan(b)
        differences = np.abs(a - b)[known] / np.maximum(1, np.abs(b[known]))
        self.note(kind, where, differences.max(initial=0.0), allowed, int(known.sum()))

    def note(self, kind, where, difference, allowed, count):
        """Keep one difference."""
        row = self.rows.setdefault(kind, {"count": 0, "difference": 0.0, "allowed": allowed, "share": -1.0})
        row["count"] += count
        share = difference / allowed if allowed else (np.inf if difference else 0.0)
        if share > row["share"]:
            row |= {"difference": difference, "allowed": allowed, "share": share, "where": where}

    def print(self, title):
        """Returns whether all passed."""
        print(f"\n{title}\n{'figure':34} {'compared':>8} {'difference':>11} {'allowed':>9}        largest at")
        for kind, row in self.rows.items():
            verdict = "pass" if row["share"] <= 1 else "FAIL"
            count, difference, allowed = row["count"], row["difference"], row["allowed"]
            print(f"{kind:34} {count:8d} {difference:11.2e} {allowed:9.1e}  {verdict}  {row['where']}")
        unseen = f", {self.unseen} of columns that are not in the tables" if self.unseen else ""
        print(f"{self.withheld} figures withheld, {self.undefined} undefined on both sides{unseen}")
        return all(row["share"] <= 1 for row in self.rows.values())


def each(table, kind, where, ours, reference):
    """Hold a figure of several numbers against its reference, number by number."""
    if reference is None or not isinstance(ours, dict) or "withheld" in ours or "undefined" in ours:
        table.compare(kind, where, ours, reference)
        return
    for name, value in reference.items():
        table.compare(kind, where, ours.get(name), value)
