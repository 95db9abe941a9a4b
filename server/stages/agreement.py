"""Agreement: a selection step that keeps features which perturbed contours change little, by their ICC."""

from typing import Any, NamedTuple

import numpy as np

from cohortium.common.study_analysis import Icc
from cohortium.server.federation import StudyFederation
from cohortium.server.stages.columns import Columns
from cohortium.strategies import icc
from cohortium.strategies.view_repeated import contours


class Kept(NamedTuple):
    """Indices of the columns that stay, and what results.json says of the step."""

    kept: list[int]
    told: dict[str, Any]


def select(federation: StudyFederation, rows: dict[str, Any], columns: Columns, step: Icc) -> Kept:
    """Columns whose ICC reaches the minimum, and those that have no other contours. One message for all sets.

    The ICC is of the values as measured, before any harmonisation, in the training patients of the replicate who have
    the feature. An undefined ICC reaches nothing.
    """
    of_set: dict[str, list[int]] = {}
    for i, column in enumerate(columns.columns):
        if column.source[0] == "features" and contours(federation.study, column.source[1]):
            of_set.setdefault(column.source[1], []).append(i)

    def fit(name: str, at: list[int]) -> icc.Icc:
        features = np.array([columns.columns[i].source[2] for i in at], dtype=np.int64)
        # what endpoint the patients have is no part of the question: a set asks once for all models
        patients = {key: value for key, value in rows.items() if key != "endpoint"}
        view = {"kind": "repeated", "rows": patients, "features": name, "at": features}
        return icc.fit(federation.rows(view), columns.centre[at], columns.scale[at])

    found = federation.together([lambda name=name, at=at: fit(name, at) for name, at in of_set.items()])
    form = step.form.replace(",", "_")
    kept, features = set(range(len(columns))) - {i for at in of_set.values() for i in at}, []
    for (name, at), one in zip(of_set.items(), found, strict=True):
        values, intervals = getattr(one, f"icc_{form}"), getattr(one, f"ci_{form}")
        kept |= {at[i] for i in np.flatnonzero(values >= step.minimum)}
        features += [
            {
                "feature": columns.columns[i].name,
                "icc": values[place],
                "ci": intervals[place],
                "patients": one.n[place],
                "contours": contours(federation.study, name) + 1,
            }
            for place, i in enumerate(at)
        ]
    return Kept(sorted(kept), {"form": step.form, "minimum": step.minimum, "features": features})
