"""Canvas: the look that all figures of the report share, and their way onto the page.

Colours are Okabe and Ito's (Color Universal Design, 2008), which readers with any colour vision can tell apart; every
line also differs by dash, so that a grey print still reads.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1f2933"
MUTED = "#5f6c7b"
HAIRLINE = "#d5dbe1"

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D1F")
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (3, 1)), (0, (1, 2)))
LOW_RISK, HIGH_RISK = COLOURS[0], COLOURS[1]
COHORT_STYLES = {
    "train": {"color": "#7A8694", "linestyle": "--"},
    "cross_validated": {"color": COLOURS[2], "linestyle": "-."},
    "leave_one_site_out": {"color": COLOURS[3], "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "internal": {"color": COLOURS[0], "linestyle": "-"},
    "external": {"color": COLOURS[1], "linestyle": "-"},
}

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 9,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    # Names inside the file follow from its content, not from chance: the same results give the same page.
    "svg.hashsalt": "cohortium",
}

# Set in DejaVu, which is wide, and shown in the reader's own sans-serif, which is not wider: nothing overlaps.
SHOWN_IN = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished figure.

    Attributes
    ----------
    source : str
        Data URI of an SVG.
    alt : str
        What it shows, in words, for who cannot see it.
    caption : str
    """

    source: str
    alt: str
    caption: str


@contextmanager
def panel(width_in: float = 4.2, height_in: float = 3.9) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure with one pair of axes, in the house's look."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def picture(figure: Figure, *, alt: str, caption: str) -> Picture:
    """Turn a figure into a picture for the page; call it inside `panel`."""
    svg = io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = svg.getvalue().decode().replace("'DejaVu Sans'", SHOWN_IN)
    encoded = base64.b64encode(text.encode()).decode()
    return Picture(source=f"data:image/svg+xml;base64,{encoded}", alt=alt, caption=caption)


def unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Make axes that both run from 0 to 1, with equal steps."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x_label, ylabel=y_label)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axes.set_yticks(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axes.plot([0, 1], [0, 1], color=HAIRLINE, linewidth=1, zorder=0)
