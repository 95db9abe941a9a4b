"""Curves: receiver operating characteristic, calibration and decision curves, a panel each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cohortium.server.report.canvas import COLOURS, DASHES, MUTED, Picture, panel, picture, unit_axes
from cohortium.server.report.text import absent, number, with_interval

Styles = Mapping[str, Mapping[str, Any]]


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give every name a colour and a dash of its own."""
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(names)
    }


def points(curve: Any, x: str, y: str) -> np.ndarray | None:
    """Read a curve that is a list of points or a record of two columns.

    Returns
    -------
    (n_points, 2) array, or None where there is no curve
    """
    if curve is None or absent(curve):
        return None
    if isinstance(curve, dict):
        if x not in curve or y not in curve:
            return None
        return np.column_stack([curve[x], curve[y]]).astype(float)
    array = np.array([point[:2] for point in curve], dtype=float)
    return array if array.size else None


def roc(figures: Mapping[str, Mapping[str, Any]], look: Styles, *, caption: str) -> Picture | None:
    """Draw the receiver operating characteristics of several cohorts or models.

    Parameters
    ----------
    figures : mapping
        Label of each line to a cohort's record of results.json.
    look : mapping
        Label to its line style.
    caption : str

    Returns
    -------
    Picture, or None where no line can be drawn
    """
    drawn = {name: points(f.get("roc"), "fpr", "tpr") for name, f in figures.items()}
    drawn = {name: line for name, line in drawn.items() if line is not None}
    if not drawn:
        return None
    with panel() as (figure, axes):
        unit_axes(axes, "1 − specificity", "Sensitivity")
        for name, line in drawn.items():
            auc = with_interval(figures[name].get("auc"), 2)
            axes.plot(line[:, 0], line[:, 1], label=f"{name}: {auc}", **look[name])
        axes.legend(loc="lower right", title="AUC (95% CI)", title_fontsize=9, alignment="left")
        told = "; ".join(f"{name} AUC {with_interval(figures[name].get('auc'), 2)}" for name in drawn)
        return picture(figure, alt=f"Receiver operating characteristic curves: {told}.", caption=caption)


def calibration(figures: Mapping[str, Mapping[str, Any]], look: Styles, *, caption: str) -> Picture | None:
    """Draw observed against predicted risk; same arguments as `roc`."""
    drawn = {name: points(f["calibration"].get("curve"), "predicted", "observed") for name, f in _calibrated(figures)}
    drawn = {name: line for name, line in drawn.items() if line is not None}
    if not drawn:
        return None
    with panel() as (figure, axes):
        unit_axes(axes, "Predicted risk", "Observed proportion")
        for name, line in drawn.items():
            axes.plot(line[:, 0], line[:, 1], marker="o", markersize=3.5, label=name, **look[name])
        axes.legend(loc="best")
        told = "; ".join(
            f"{name}, {len(line)} groups, predicted {number(line[0, 0], 2)} to {number(line[-1, 0], 2)}, "
            f"observed {number(line[0, 1], 2)} to {number(line[-1, 1], 2)}"
            for name, line in drawn.items()
        )
        return picture(figure, alt=f"Calibration curves: {told}. The diagonal is perfect calibration.", caption=caption)


def _calibrated(figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (name, f)
        for name, f in figures.items()
        if isinstance(f.get("calibration"), dict) and not absent(f["calibration"])
    ]


def decision(figures: Mapping[str, Mapping[str, Any]], look: Styles, *, caption: str) -> Picture | None:
    """Draw net benefit against threshold for several models in one cohort; same arguments as `roc`."""
    drawn = {name: points(f.get("decision_curve"), "thresholds", "net_benefit") for name, f in figures.items()}
    drawn = {name: line for name, line in drawn.items() if line is not None and len(line)}
    if not drawn:
        return None
    treat_all = points(figures[next(iter(drawn))]["decision_curve"], "thresholds", "treat_all")
    with panel() as (figure, axes):
        if treat_all is not None:
            axes.plot(treat_all[:, 0], treat_all[:, 1], color=MUTED, linewidth=1, label="treat all")
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=":", label="treat none")
        for name, line in drawn.items():
            axes.plot(line[:, 0], line[:, 1], label=name, **look[name])
        every = np.concatenate(list(drawn.values()))
        top = max(float(every[:, 1].max()), 0.02)
        axes.set(xlabel="Threshold probability", ylabel="Net benefit", ylim=(-0.25 * top, 1.15 * top))
        axes.set_xlim(0, float(every[:, 0].max()))
        axes.legend(loc="best")
        told = "; ".join(
            f"{name} from {number(line[0, 1], 3)} at {number(line[0, 0], 2)} to {number(line[-1, 1], 3)} "
            f"at {number(line[-1, 0], 2)}"
            for name, line in drawn.items()
        )
        return picture(figure, alt=f"Decision curves, net benefit: {told}.", caption=caption)
