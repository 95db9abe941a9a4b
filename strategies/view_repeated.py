"""View repeated: features of a set as measured with every contour of a patient, raw, for the agreement of contours."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cohortium.common.study import Study
from cohortium.common.table import perturbed
from cohortium.strategies import views
from cohortium.strategies.icc import Repeated
from cohortium.strategies.view_patients import Context, selected


def contours(study: Study, feature_set: str) -> int:
    """How many contours beside a site's own a feature set was measured with."""
    return getattr(study.features.get(feature_set), "perturbations", 0)


def repeated(view: Mapping[str, Any], context: Context) -> Repeated:
    """Rows of ``{"kind": "repeated", "rows", "features": set, "at": indices}``: the site's own contour comes first.

    Values are as measured: what harmonises them was learned from the site's own contour alone. Where another could not
    be measured, the site's own value stands in: a patient left out of these sums and of no others would be the
    difference between them.
    """
    names = views.feature_columns(context.table.feature_names, view["features"])
    names = [names[i] for i in np.asarray(view["at"], dtype=np.int64)]
    numbers = range(1, contours(context.study, view["features"]) + 1)
    columns = [names, *([perturbed(name, number) for name in names] for number in numbers)]
    x = np.stack([context.table.matrix(of_contour) for of_contour in columns], axis=2)
    x = np.where(np.isnan(x), x[:, :, :1], x)
    return Repeated(x[selected(context, view["rows"])])
