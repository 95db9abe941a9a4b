"""Agreement: what the page says of features that were compared between contours."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from cohortium.server.report.text import number

Record = Mapping[str, Any]
BANDS = ((0.9, "0.9 or more"), (0.75, "0.75 to 0.9"), (0.5, "0.5 to 0.75"), (float("-inf"), "below 0.5"))
"""Excellent, good, moderate and poor reliability of Koo & Li (J Chiropr Med 15:155, 2016)."""


def agreement_notes(steps: Sequence[Record]) -> list[str]:
    """A paragraph for each step that compared contours: how the ICC is distributed, and how many features it left out.

    Parameters
    ----------
    steps : sequence of mapping
        Of a model's selection in results.json.
    """
    return [_note(step) for step in steps if step["method"] == "icc" and step["features"]]


def _note(step: Record) -> str:
    features = step["features"]
    known = [one["icc"] for one in features if isinstance(one["icc"], int | float)]
    contours = " or ".join(str(n) for n in sorted({one["contours"] for one in features}))
    patients = sorted({one["patients"] for one in features})
    said = (
        f"ICC({step['form']}) of {len(features):,} features over {contours} contours a patient (the site's own, and "
        "others grown or shrunk by up to 15% of their volume and redrawn along supervoxels; values before any "
        f"harmonisation) in {' to '.join(f'{n:,}' for n in dict.fromkeys((patients[0], patients[-1])))} patients: "
    )
    if known:
        said += f"median {number(median(known), 2)} ({number(min(known), 2)} to {number(max(known), 2)}); "
    counts, above = [], float("inf")
    for least, label in BANDS:
        counts.append(f"{sum(least <= icc < above for icc in known)} {label}")
        above = least
    if len(known) < len(features):
        counts.append(f"{len(features) - len(known)} undefined")
    dropped = step["from"] - step["kept"]
    return f"{said}{', '.join(counts)}. {dropped:,} below {step['minimum']:g} were left out."
