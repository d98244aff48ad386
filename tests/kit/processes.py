"""The processes of this machine with their command lines, as /proc shows them: a bare machine has no `ps`. And which program is tested."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def edgekube() -> Sequence[str]:
    """What starts edgekube in the tests: the source, or the binary that EDGEKUBE_TEST_PROGRAM names."""
    named = os.environ.get("EDGEKUBE_TEST_PROGRAM")
    return (str(Path(named).resolve()),) if named else (sys.executable, "-m", "edgekube")


def command_lines() -> Iterator[tuple[int, str]]:
    """(process id, command line). Kernel threads have none and are left out, as are processes that end meanwhile."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text:
            yield int(folder.name), text
