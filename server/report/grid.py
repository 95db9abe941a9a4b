"""Grid: one table of the report, whose missing figures carry a note with their reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cohortium.server.report.text import absent


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands in one place of a table.

    Attributes
    ----------
    text : str
    mark : str
        Letter of the note that explains the cell; empty where none is needed.
    """

    text: str
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A head and its cells; a row without cells is a subheading."""

    head: str
    cells: list[Cell] = field(default_factory=list)
    indented: bool = False


class Grid:
    """A table that is filled row by row.

    Parameters
    ----------
    caption : str
    columns : sequence of str
        Heads, the first being that of the row heads.
    groups : sequence of (str, int)
        Heads above the heads, each with the number of columns it spans; the first column has none.
    """

    def __init__(self, caption: str, columns: Sequence[str], groups: Sequence[tuple[str, int]] = ()) -> None:
        self.caption = caption
        self.columns = list(columns)
        self.groups = list(groups)
        self.rows: list[Row] = []
        self.notes: dict[str, str] = {}

    def row(self, head: str, cells: Sequence[str | Cell], *, indented: bool = False) -> None:
        """Add a row; bare texts become cells."""
        made = [cell if isinstance(cell, Cell) else Cell(text=cell) for cell in cells]
        self.rows.append(Row(head=head, cells=made, indented=indented))

    def subheading(self, head: str) -> None:
        """Add a row that heads those below it."""
        self.rows.append(Row(head=head))

    def cell(self, figure: Any, write: Callable[[Any], str]) -> Cell:
        """Write a figure, or why it or its interval is not there."""
        missing = absent(figure)
        if missing:
            return self.noted(missing.kind, missing.reason)
        unbounded = absent(figure.get("ci")) if isinstance(figure, Mapping) else None
        if unbounded:
            return self.noted(write(figure), f"confidence interval {unbounded.kind}: {unbounded.reason}")
        return Cell(text="–" if figure is None else write(figure))

    def noted(self, text: str, reason: str) -> Cell:
        """Make a cell whose reason stands below the table; equal reasons share a letter."""
        if reason not in self.notes:
            self.notes[reason] = chr(ord("a") + len(self.notes)) if len(self.notes) < 26 else f"n{len(self.notes) + 1}"
        return Cell(text=text, mark=self.notes[reason])
