"""Tables in the terminal: numbers to the right, and never wider than what they are printed on.

Rules: what is no terminal has all the room there is, so that a file or another program gets every column; on a narrow
terminal the columns that matter least are left out, which is said, and words are folded, not numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpost.report.units import plain

__all__ = ["Column", "print_table"]

_UNBOUNDED: Final = 10_000
_HEIGHT: Final = 25
_WORDS: Final = 48


class Column(NamedTuple):
    """A column.

    Attributes:
        title: Its title.
        number: Whether its cells stand to the right.
        rank: Columns of a higher rank are left out first; those of 0 never.
    """

    title: str
    number: bool = True
    rank: int = 0


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print a table on standard output.

    Args:
        columns: The columns.
        rows: The cells of each row; text from elsewhere is printed as text.
    """
    console, unbounded = Console(), Console(width=_UNBOUNDED, height=_HEIGHT)  # a dumb terminal counts only with both
    if not console.is_terminal:
        console = unbounded
    widest = _WORDS if console.is_terminal else None
    shown = list(range(len(columns)))
    # Of the same rank the last goes first.
    spare = sorted((index for index in shown if columns[index].rank), key=lambda index: (columns[index].rank, index))
    table = _table(columns, rows, shown, widest)
    while spare and unbounded.measure(table).maximum > console.width:
        shown.remove(spare.pop())
        table = _table(columns, rows, shown, widest)
    console.print(table)
    if left_out := [column.title for index, column in enumerate(columns) if index not in shown]:
        console.print(Text(f"Not shown, for want of room: {', '.join(left_out)}.", style="dim"))


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], shown: Sequence[int], widest: int | None
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index in shown:
        if columns[index].number:
            table.add_column(columns[index].title, justify="right", no_wrap=True)
        else:
            table.add_column(columns[index].title, overflow="fold", max_width=widest)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in (row[i] for i in shown)))
    return table
