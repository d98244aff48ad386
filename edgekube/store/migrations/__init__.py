"""From one format of the database to the next: forward only, one module a step, each in one transaction with its new number.

STEPS[0] leads from format 1 to format 2, and so on. A step is a module of this package with `upgrade(connection)`; it runs in the database
thread, in a transaction that a crash rolls back, and may change tables, keys and values. Once released it is never changed again. A new
database is made in format 1 and goes the same way, so that old and new ones can not differ. There is no way back: what an upgrade goes
back to is its copy of the old database, and an older program refuses a newer database untouched.

A new step also needs: a golden database of the format before, made by the last release (tests/unit/store/golden), and rows of a snapshot in
that format still fit `slotlog.Row` (store/transplant.py puts them in before the steps run).
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgekube.lib.failpoint import hit


class Step(NamedTuple):
    """`to`: the format that it makes."""

    to: int
    upgrade: Callable[[sqlite3.Connection], None]


STEPS: Sequence[Step] = ()


def newest() -> int:
    """The format of this program."""
    return 1 + len(STEPS)


def migrate(connection: sqlite3.Connection, version: int, *, upto: int) -> None:
    """Take a database in format `version` to format `upto`. Raises sqlite3.Error: then the step did not happen."""
    for step in STEPS:
        if not version < step.to <= upto:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            step.upgrade(connection)
            connection.execute(f"PRAGMA user_version = {step.to}")
            hit("store.migrate.before-commit")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
