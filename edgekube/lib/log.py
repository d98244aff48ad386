"""Logs a person and a program can both read: a constant lower-case message, then key=value fields.

    2026-11-20T12:00:00.123Z info scheduler.cycle pod bound pod=default/web-1 node=pi

Fields come through `extra={...}`; message text never carries values. Under systemd (JOURNAL_STREAM) the time is left to the journal
and the level is written as the journal's `<N>` prefix.
"""

import logging
import os
import sys
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
            return f"<{_JOURNAL_PRIORITY.get(record.levelno, 6)}>{line}"
        moment = datetime.fromtimestamp(record.created, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z {line}"


def _quote(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


def set_up(level: str) -> None:
    """Send all logs at `level` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("asyncio", "aiohttp.access", "urllib3", "podman"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
