"""Logs a person and a program can both read: a constant lower-case message, then key=value fields.

    2026-11-20T12:00:00.123Z info scheduler.cycle pod bound pod=default/web-1 node=pi

Fields come through `extra={...}`; message text never carries values. Where stderr is the journal (JOURNAL_STREAM), it keeps the time, and
the level is written as the journal's `<N>` prefix.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_JOURNAL_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class FieldFormatter(logging.Formatter):
    """Message plus fields on one line; a traceback only at debug level or for unexpected errors, on lines of its own."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_quote(value)}" for name, value in record.__dict__.items() if name not in _STANDARD)
        name = record.name.removeprefix("edgekube.")
        line = f"{record.levelname.lower()} {name} {record.getMessage()}{fields}"
        if record.exc_info and record.exc_info[1] is not None:
            line += f" error={_quote(repr(record.exc_info[1]))}"
            if record.levelno >= logging.ERROR or record.levelno == logging.DEBUG:
                line += "\n" + self.formatException(record.exc_info)
        if self._journal:
            return for_journal(record.levelno, line)
        moment = datetime.fromtimestamp(record.created, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z {line}"


def for_journal(level: int, text: str) -> str:
    """With the level in front of each line: journald takes every line for an entry of its own."""
    mark = f"<{_JOURNAL_PRIORITY.get(level, 6)}>"
    return "\n".join(mark + line for line in text.split("\n"))


def is_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr leads to the journal itself: the variable alone is inherited by whoever is started from a service."""
    try:
        device, inode = map(int, environ.get("JOURNAL_STREAM", "").split(":"))
        found = os.fstat(sys.stderr.fileno())
    except (ValueError, OSError):
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def say(level: int, text: str) -> None:
    """One line for whoever started us, person or journal; not a log entry."""
    with contextlib.suppress(OSError):
        sys.stderr.write((for_journal(level, text) if is_journal(os.environ) else text) + "\n")
        sys.stderr.flush()


def _quote(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def set_up(level: str) -> None:
    """Send all logs at `level` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(journal=is_journal(os.environ)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp.access", "urllib3", "podman"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
