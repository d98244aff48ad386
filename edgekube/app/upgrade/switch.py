"""The names of the installed program and what they hold. Each step is one rename: a crash leaves the old or the new, never none.

    PATH            what is started: the program, or during a trial the script that starts the judge and the one on trial
    PATH.next       the program on trial; stays until the next start, for processes that were started by this name
    PATH.previous   the program before, kept also afterwards
"""

import contextlib
import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgekube.lib.failpoint import hit
from edgekube.lib.files import sync_folder, write_atomic

_MARK = "#!/bin/sh\n# edgekube: the program beside this is on trial"
_SCRIPT = """{mark}; see edgekube.app.upgrade. It is replaced when the trial ends.
case "$1" in
server | agent)
    if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
        systemd-run -q --collect {judge} >/dev/null 2>&1
    else
        (setsid {judge} </dev/null >/dev/null 2>&1 &)
    fi ;;
esac
exec {program} "$@"
"""


class Switch:
    """The program at `path`. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next = path.with_name(f"{path.name}.next")
        self.previous = path.with_name(f"{path.name}.previous")

    @property
    def on_trial(self) -> bool:
        """Whether the installed path holds the script."""
        try:
            with self.path.open("rb") as file:
                return file.read(len(_MARK)) == _MARK.encode()
        except OSError:
            return False

    def bring(self, file: Path) -> None:
        """Copy `file` to where it can be executed, durably; it need not stay."""
        aside = self._aside()
        try:
            shutil.copyfile(file, aside)
            aside.chmod(0o755)
            with aside.open("rb") as copied:
                os.fsync(copied.fileno())
            aside.replace(self.next)
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def keep_previous(self) -> None:
        """What is installed gets its second name; unless that is the script of a trial."""
        if not self.on_trial:
            self._link(self.path, self.previous)
            hit("upgrade.kept-previous")

    def begin(self, data: Path) -> None:
        """The trial begins, with the previous one as its judge."""
        script = _SCRIPT.format(mark=_MARK, judge=shlex.join(self.judge(data)), program=shlex.quote(str(self.next)))
        write_atomic(self.path, script.encode(), mode=0o755)

    def judge(self, data: Path) -> Sequence[str]:
        """The command that judges what is on trial: the previous program's."""
        return [str(self.previous), "upgrade", "--resume", f"--data-dir={data}", f"--program={self.path}"]

    def keep(self) -> None:
        """The one on trial is the program from now on."""
        if self.on_trial:
            self._link(self.next, self.path)

    def go_back(self) -> None:
        """The previous one is the program again."""
        if self.on_trial:
            self._link(self.previous, self.path)

    def tidy(self) -> None:
        """After a trial: nobody uses the third name any more."""
        if not self.on_trial:
            self.next.unlink(missing_ok=True)

    def _link(self, source: Path, target: Path) -> None:
        """`target` becomes another name of what is at `source`, be that a link itself (to a Python environment)."""
        aside = self._aside()
        aside.unlink(missing_ok=True)
        try:
            try:
                os.link(source, aside, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copy2(source, aside, follow_symlinks=False)
            if not _same(source, target):
                aside.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                aside.unlink()
        sync_folder(target.parent)

    def _aside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")


def _same(one: Path, other: Path) -> bool:
    """rename() of two names of one file does nothing, not even remove the first."""
    try:
        first, second = one.lstat(), other.lstat()
    except FileNotFoundError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
