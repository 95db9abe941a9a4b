"""Forest: estimates with their intervals beside a line of no effect."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cohortium.server.report.canvas import COLOURS, HAIRLINE, INK, MUTED, Picture, panel, picture
from cohortium.server.report.text import limits, number

MOST_LINES = 40


class Line(NamedTuple):
    """One estimate; ``ci`` is None where it has no interval."""

    label: str
    value: float
    ci: tuple[float, float] | None


def forest(
    lines: Sequence[Line],
    *,
    x_label: str,
    caption: str,
    no_effect: float | None = None,
    scale: str = "linear",
) -> Picture | None:
    """Draw a forest plot, first line on top.

    Parameters
    ----------
    lines : sequence of Line
        On a log scale, estimates or limits that are not positive are left out of the picture.
    no_effect : float, optional
        Where the dashed line of no effect, or of an overall estimate, stands.
    scale : {"linear", "log"}

    Returns
    -------
    Picture, or None where there is nothing to draw
    """
    drawn = [line for line in lines if scale == "linear" or _positive(line)][:MOST_LINES]
    if not drawn:
        return None
    with panel(width_in=5.2, height_in=0.8 + 0.27 * len(drawn)) as (figure, axes):
        for y, (_, value, ci) in enumerate(drawn):
            if ci:
                axes.plot(ci, [y, y], color=INK, linewidth=1.2, solid_capstyle="butt")
            axes.plot(value, y, marker="s", markersize=5, color=COLOURS[0])
        if no_effect is not None:
            axes.axvline(no_effect, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.set_yticks(range(len(drawn)), [line.label for line in drawn])
        axes.set(ylim=(len(drawn) - 0.4, -0.6), xlabel=x_label)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=HAIRLINE, linewidth=0.6)
        axes.set_axisbelow(True)
        if scale == "log":
            _log_axis(axes)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        told = "; ".join(
            f"{line.label} {number(line.value, 2)}" + (f" ({limits(*line.ci, 2)})" if line.ci else "") for line in drawn
        )
        return picture(figure, alt=f"Forest plot, {x_label}: {told}.", caption=caption)


def _positive(line: Line) -> bool:
    return line.value > 0 and (line.ci is None or line.ci[0] > 0)


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    # Powers of ten alone would leave a bare axis within one power: a reader of ratios expects 0.5, 1, 2, 3, 5.
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 12 else (1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
