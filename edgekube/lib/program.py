"""This program itself: how to start it again, and what its package put into the environment.

Installed as one file, edgekube is a launcher that unpacks a frozen program and becomes it. The launcher leaves its own path in
`_EDGEKUBE_FILE`; PyInstaller leaves LD_LIBRARY_PATH, which would make podman or nft load our libraries. `settle` takes both out of the
environment before anything else runs, so that no child ever sees them.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_FILE = "_EDGEKUBE_FILE"
_PACKAGE = ("_PYI_", "_MEIPASS", _FILE)

_launcher: list[Path] = []  # at most one; filled by `settle`


def settle() -> None:
    """Make the environment the one that the user gave. Call it first."""
    if _FILE in os.environ:
        _launcher[:] = [Path(os.environ[_FILE])]
    if is_frozen():
        original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
        if original is None:
            os.environ.pop("LD_LIBRARY_PATH", None)
        else:
            os.environ["LD_LIBRARY_PATH"] = original
    for name in [name for name in os.environ if name.startswith(_PACKAGE)]:
        del os.environ[name]


def is_frozen() -> bool:
    """Whether this is the binary, not a Python that runs the source."""
    return bool(getattr(sys, "frozen", False))


def launcher() -> Path | None:
    """The one file that was installed and started, if this is it."""
    return _launcher[0] if _launcher else None


def unpacked() -> Path | None:
    """The folder of this version's files, if this is the binary."""
    return Path(sys.executable).parent if is_frozen() else None


def own_command() -> Sequence[str]:
    """What starts edgekube again in the same version, or after an upgrade in the new one; arguments follow."""
    if _launcher:
        return [str(_launcher[0])]
    return [sys.executable] if is_frozen() else [sys.executable, "-m", "edgekube"]
