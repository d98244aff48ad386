"""Tables on the terminal, as kubectl prints them."""

from collections.abc import Sequence


def show(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the head first, in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
