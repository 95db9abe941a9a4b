"""Text: numbers, cohorts and missing figures as a medical journal prints them."""

from typing import Any, NamedTuple

MINUS = "\u2212"

COHORTS = {
    "train": "Training",
    "cross_validated": "Cross-validated",
    "leave_one_site_out": "Leave-one-site-out",
    "internal": "Internal validation",
    "external": "External validation",
}
"""Whole cohorts in the order in which a reader meets them."""

KINDS = {
    "logistic": "Logistic regression",
    "lasso": "Penalised logistic regression (LASSO)",
    "linear": "Linear regression, least squares",
    "lasso_linear": "Penalised linear regression (LASSO)",
    "lasso_cox": "Penalised Cox proportional hazards (LASSO)",
    "cox": "Cox proportional hazards",
    "network": "Network head, federated averaging of weights",
    "mlp": "Multilayer perceptron, exact gradient sums",
    "linear_svm": "Linear support vector machine",
    "rff_svm": "Support vector machine on random Fourier features",
    "gradient_boosting": "Gradient boosting on histograms",
    "staging": "Existing staging system",
}


class Absent(NamedTuple):
    """A figure that is not there, and why."""

    kind: str
    reason: str


def absent(figure: Any) -> Absent | None:
    """Say why a figure is not there; None if it is.

    >>> absent({"withheld": "fewer than 5 patients"})
    Absent(kind='withheld', reason='fewer than 5 patients')
    >>> absent({"estimate": 0.8}) is None
    True
    """
    if isinstance(figure, dict):
        for kind in ("withheld", "undefined"):
            if kind in figure:
                return Absent(kind, str(figure[kind]))
    return None


def estimate(figure: Any) -> float | None:
    """Point estimate of a figure that is a number or a record with an ``estimate``."""
    if isinstance(figure, dict):
        figure = figure.get("estimate")
    return float(figure) if isinstance(figure, int | float) else None


def interval(figure: Any, key: str = "ci") -> tuple[float, float] | None:
    """Confidence interval of a figure, where it has one."""
    limits = figure.get(key) if isinstance(figure, dict) else None
    if not isinstance(limits, list | tuple) or len(limits) != 2 or any(absent(limit) for limit in limits):
        return None
    return float(limits[0]), float(limits[1])


def number(value: float, digits: int = 3) -> str:
    """Write a number with fixed decimals, and in powers of ten where those would hide it.

    >>> number(0.8312), number(-0.5, 2), number(0), number(3.2e-7), number(2.5e9)
    ('0.831', '−0.50', '0.000', '3.2×10⁻⁷', '2.5×10⁹')
    """
    if value != 0 and not 10.0**-digits / 2 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}×10{power}".replace("-", MINUS)
    return f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", MINUS)


def count(value: float) -> str:
    """Write a whole number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f").replace("-", MINUS)


def percent(part: float, whole: float) -> str:
    """Write a share; a dash of nothing.

    >>> percent(3, 12), percent(0, 0)
    ('25.0%', '–')
    """
    return f"{100 * part / whole:.1f}%" if whole else "–"


def limits(low: float, high: float, digits: int = 3) -> str:
    """Write an interval: a dash between positive limits, ``to`` where a sign could be misread.

    >>> limits(0.8, 0.86, 2), limits(-0.1, 0.2, 2)
    ('0.80–0.86', '−0.10 to 0.20')
    """
    return f"{number(low, digits)}{'–' if low >= 0 and high >= 0 else ' to '}{number(high, digits)}"


def with_interval(figure: Any, digits: int = 3) -> str:
    """Write an estimate and, where there is one, its interval in brackets."""
    value, ci = estimate(figure), interval(figure)
    if value is None:
        return "–"
    if ci and abs(value) < 10.0**-digits / 2 < ci[1] - ci[0]:
        value = 0.0  # its interval says that it is nothing; 5.8×10⁻⁶ would only seem exact
    return number(value, digits) + (f" ({limits(*ci, digits)})" if ci else "")


def p_value(p: float | None) -> str:
    """Write a p value as journals do.

    >>> p_value(0.0314), p_value(0.31), p_value(1e-9), p_value(None)
    ('0.031', '0.31', '<0.001', '–')
    """
    if p is None:
        return "–"
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def data_size(n_bytes: float) -> str:
    """Write a number of bytes.

    >>> data_size(812), data_size(48211), data_size(3.2e6)
    ('812 B', '48.2 kB', '3.2 MB')
    """
    if n_bytes < 1e3:
        return f"{n_bytes:.0f} B"
    if n_bytes < 1e6:
        return f"{n_bytes / 1e3:.1f} kB"
    return f"{n_bytes / 1e6:.1f} MB"


def words(name: str) -> str:
    """Write a name of the study file for a reader: underscores become blanks."""
    return name.replace("_", " ")


def cohort_label(cohort: str) -> str:
    """Name a cohort for a reader.

    >>> cohort_label("internal"), cohort_label("train/site:north")
    ('Internal validation', 'Training, site north')
    >>> cohort_label("external/site:north/subgroup:sex=1"), cohort_label("train/analysis:fused->death,stage=2")
    ('External validation, site north, sex = 1', 'Training, fused for death, stage = 2')
    """
    part, *rest = cohort.split("/")
    return ", ".join([COHORTS.get(part, words(part)), *map(_subset_label, rest)])


def _subset_label(subset: str) -> str:
    kind, _, what = subset.partition(":")
    what = words(what).replace("=", " = ").replace("->", " for ").replace(",", ", ")
    return f"site {what}" if kind == "site" else what
