"""Explanations: what each variable does to a model's score: a table of importance and the nomogram as a drawing."""

from collections.abc import Mapping
from typing import Any

from cohortium.server.report.canvas import COLOURS, HAIRLINE, INK, Picture, panel, picture
from cohortium.server.report.grid import Grid
from cohortium.server.report.text import absent, number, words

Record = Mapping[str, Any]
MOST_VARIABLES = 30
TICKS = 5


def importance_grid(explanation: Record, caption: str) -> Grid | None:
    """Mean |SHAP| and fall of the AUC of each variable, the most important first; None where neither was asked."""
    asked = [key for key in ("shap", "permutation") if key in explanation]
    if not asked:
        return None
    if sampling := explanation.get("shap_sampling"):
        caption += (
            f" SHAP values of {sampling['patients']} patients, by {sampling['permutations']} sampled permutations "
            f"against {sampling['background']['rows']} background rows, drawn from marginals over the training "
            "patients."
        )
    if patients := explanation.get("permutation", {}).get("patients"):
        caption += f" Falls of the AUC over {patients} patients."
    heads = {"shap": "Mean |SHAP|, linear predictor", "permutation": "Fall of the AUC when drawn anew"}
    grid = Grid(caption, ["", *(heads[key] for key in asked)])
    columns = {key: _by_variable(explanation[key]) for key in asked}
    known = next((of for of in columns.values() if not absent(of)), {})
    for name in sorted(known, key=lambda name: -known[name])[:MOST_VARIABLES]:
        figures = [of if absent(of) else of.get(name) for of in columns.values()]
        grid.row(words(name), [grid.cell(figure, lambda value: number(value, 3)) for figure in figures])
    if not known:
        grid.row("All variables", [grid.cell(of, str) for of in columns.values()])
    return grid


def _by_variable(figures: Any) -> dict[str, Any]:
    if absent(figures):
        return figures
    if isinstance(figures, Mapping):
        return {entry["variable"]: entry["fall"] for entry in figures["variables"]}
    return {entry["variable"]: entry["mean_absolute"] for entry in figures}


def nomogram(explanation: Record, *, caption: str) -> Picture | None:
    """Draw the axes under each other: points, the variables, total points and, of binary models, the risk.

    Returns
    -------
    Picture, or None where there is no nomogram
    """
    found = explanation.get("nomogram")
    if found is None or absent(found) or not found["points_per_unit"]:
        return None
    axes_of = found["axes"]
    rows = ["Points", *(words(axis["variable"]) for axis in axes_of), "Total points"] + ["Risk"] * (
        len(found["risk"]) > 1
    )
    total = found["highest_total"]
    with panel(width_in=6.4, height_in=0.5 + 0.48 * len(rows)) as (figure, axes):
        _axis(axes, 0, [(float(p), f"{p}") for p in range(0, 101, 20)])
        for y, axis in enumerate(axes_of, start=1):
            _axis(axes, y, _ticks(axis["points"]))
        at = len(axes_of) + 1
        _axis(axes, at, [(100.0 * k / TICKS, number(total * k / TICKS, 0)) for k in range(TICKS + 1)])
        if len(found["risk"]) > 1:
            _axis(axes, at + 1, _thinned([(100 * t / total, f"{100 * risk:g}%") for t, risk in found["risk"]]))
        axes.set_yticks(range(len(rows)), rows)
        axes.set(xlim=(-4, 104), ylim=(len(rows) - 0.3, -0.6), xticks=[])
        axes.tick_params(axis="y", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        told = "; ".join(f"{words(a['variable'])} {max(p for _, p in a['points']):.0f}" for a in axes_of)
        return picture(figure, alt=f"Nomogram; most points of each variable: {told}.", caption=caption)


def _axis(axes: Any, y: int, ticks: list[tuple[float, str]]) -> None:
    places = [place for place, _ in ticks]
    axes.plot([min(places), max(places)], [y, y], color=INK, linewidth=1)
    axes.axhline(y, color=HAIRLINE, linewidth=0.5, zorder=0)
    for place, label in ticks:
        axes.plot([place, place], [y - 0.1, y], color=COLOURS[0], linewidth=1)
        axes.annotate(label, (place, y + 0.08), ha="center", va="top", fontsize=8)


def _ticks(points: list[list[Any]]) -> list[tuple[float, str]]:
    """Places and labels of an axis: levels as they are, a measured variable cut evenly between its ends."""
    if len(points) == 2 and all(isinstance(value, float) for value, _ in points):
        (low, from_), (high, to) = points
        digits = max(0, min(4, 2 - len(f"{abs(high - low):.0f}"))) if abs(high - low) >= 1 else 3
        return _thinned(
            [
                (from_ + (to - from_) * k / TICKS, number(low + (high - low) * k / TICKS, digits))
                for k in range(TICKS + 1)
            ]
        )
    return _joined([(place, str(value)) for value, place in points])


def _joined(ticks: list[tuple[float, str]], least: float = 4.0) -> list[tuple[float, str]]:
    """Levels in order of their points; the labels of those closer than `least` points share a place."""
    kept: list[tuple[float, str]] = []
    for place, label in sorted(ticks, key=lambda tick: tick[0]):
        if kept and place - kept[-1][0] < least:
            kept[-1] = (kept[-1][0], f"{kept[-1][1]}, {label}")
        else:
            kept.append((place, label))
    return kept


def _thinned(ticks: list[tuple[float, str]], least: float = 6.0) -> list[tuple[float, str]]:
    """Ticks in order, both ends among them, the others at least `least` points from the one before and the last."""
    first, *inner, last = sorted(ticks, key=lambda tick: tick[0])
    kept = [first]
    for tick in inner:
        if min(tick[0] - kept[-1][0], last[0] - tick[0]) >= least:
            kept.append(tick)
    return [*kept, last]
