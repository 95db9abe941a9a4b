"""Survival curves: Kaplan-Meier estimates of risk groups with their numbers at risk."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from cohortium.server.report.canvas import HIGH_RISK, LOW_RISK, MUTED, Picture, panel, picture
from cohortium.server.report.text import absent, number

GROUPS = {"low": ("Low risk", LOW_RISK, "-"), "high": ("High risk", HIGH_RISK, "--")}
DAYS_A_MONTH, DAYS_A_YEAR = 30.4375, 365.25


What = Literal["survival", "incidence"]
SHOWN: dict[What, tuple[float, str, Literal["lower left", "upper left"], str]] = {
    "survival": (1.0, "Survival probability", "lower left", "Kaplan-Meier curves"),
    "incidence": (0.0, "Cumulative incidence", "upper left", "Cumulative incidence of the event"),
}


def kaplan_meier(
    curves: Mapping[str, Any], *, unit: str, subtitle: str, caption: str, what: What = "survival"
) -> Picture | None:
    """Draw survival, or the cumulative incidence beside competing events, by risk group.

    Parameters
    ----------
    curves : mapping
        ``low`` and ``high``, each a list of ``[time, survival or incidence, lower, upper, at risk]``.
    unit : str
        Unit of the times; days are shown as months or years where these read better.
    subtitle : str
        A line inside the figure: hazard ratio and log-rank test.
    caption : str

    Returns
    -------
    Picture, or None where no group has a curve
    """
    drawn = {name: np.array(curves[name], dtype=float) for name in GROUPS if _has_curve(curves, name)}
    if not drawn:
        return None
    start, y_label, corner, told_as = SHOWN[what]
    longest = max(float(curve[-1, 0]) for curve in drawn.values())
    per_unit, shown_unit = _shown_unit(unit, longest)
    with panel(height_in=4.1) as (figure, axes):
        for name, curve in drawn.items():
            label, colour, dash = GROUPS[name]
            time = np.r_[0, curve[:, 0]] / per_unit
            axes.step(time, np.r_[start, curve[:, 1]], where="post", color=colour, linestyle=dash, label=label)
            axes.fill_between(
                time,
                np.r_[start, curve[:, 2]],
                np.r_[start, curve[:, 3]],
                step="post",
                color=colour,
                alpha=0.13,
                linewidth=0,
            )
        axes.set(ylim=(-0.01, 1.02), xlabel=f"Time ({shown_unit})", ylabel=y_label)
        axes.set_xlim(0, max(longest / per_unit * 1.02, 1.0))  # one event at the start still needs an axis
        axes.legend(loc=corner, title=subtitle or None, title_fontsize=9, alignment="left")
        _numbers_at_risk(axes, drawn, per_unit)
        told = "; ".join(
            f"{GROUPS[name][0].lower()} {_told(curve, per_unit)} {shown_unit}" for name, curve in drawn.items()
        )
        return picture(figure, alt=f"{told_as}: {told}. {subtitle}", caption=caption)


def _has_curve(curves: Mapping[str, Any], name: str) -> bool:
    curve = curves.get(name)
    return isinstance(curve, Sequence) and not absent(curve) and len(curve) > 0


def _shown_unit(unit: str, longest: float) -> tuple[float, str]:
    if unit == "days" and longest > 3 * DAYS_A_YEAR:
        return DAYS_A_YEAR, "years"
    if unit == "days" and longest > 6 * DAYS_A_MONTH:
        return DAYS_A_MONTH, "months"
    return 1.0, unit


def _numbers_at_risk(axes: Axes, drawn: Mapping[str, np.ndarray], per_unit: float) -> None:
    """Write a line a group below the axis; they take part in the layout, so that nothing is cut off."""
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks)
    below = axes.get_xaxis_transform()
    axes.text(0, -0.19, "Number at risk", transform=below, fontsize=9, color=MUTED, va="top", ha="left")
    for line, (name, curve) in enumerate(drawn.items()):
        label, colour, _ = GROUPS[name]
        y = -0.255 - 0.065 * line
        axes.text(-0.06, y, label.split()[0], transform=axes.transAxes, fontsize=9, color=colour, va="top", ha="right")
        for tick in ticks:
            text = at_risk(curve, tick * per_unit)
            axes.text(tick, y, text, transform=below, fontsize=9, color=colour, va="top", ha="center")


def at_risk(curve: np.ndarray, time: float) -> str:
    """Write how many of a group are at risk just before its first event at or after a time; a dash after the last.

    >>> curve = np.array([[3, 0.9, 0.8, 1, 40], [8, 0.7, 0.6, 0.8, 21]])
    >>> at_risk(curve, 0), at_risk(curve, 5), at_risk(curve, 9)
    ('40', '21', '–')
    """
    later = curve[curve[:, 0] >= time]
    return f"{later[0, 4]:.0f}" if len(later) else "–"


def _told(curve: np.ndarray, per_unit: float) -> str:
    return f"{number(float(curve[-1, 1]), 2)} at {number(float(curve[-1, 0]) / per_unit, 1)}"


def at_last_horizon(records: Mapping[str, Mapping[str, Any]], figure: str, as_key: str) -> tuple[str, dict[str, Any]]:
    """Pick a figure that is kept by horizon, at the last horizon that any record has it at.

    Parameters
    ----------
    records : mapping
        Label to a cohort's record of results.json.
    figure : str
        Under ``survival``, e.g. ``"calibration_at"``.
    as_key : str
        Key under which the drawing of binary models looks for it.

    Returns
    -------
    horizon, as results.json writes it (empty where there is none), and label to ``{as_key: figure}``
    """
    known: dict[str, dict[str, Any]] = {}
    for label, record in records.items():
        survival = record.get("survival")
        by_time = survival.get(figure) if isinstance(survival, Mapping) else None
        for horizon, value in (by_time or {}).items():
            if isinstance(value, Mapping) and not absent(value):
                known.setdefault(horizon, {})[label] = {as_key: value}
    last = max(known, key=float, default="")
    return last, known.get(last, {})
