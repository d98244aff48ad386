"""What was changed on this host, outside of what is ours alone: written down before it is done, so that it can be undone.

A receipt is a file of JSON lines, only ever appended to, each synced before `note` returns. Several processes may write to it (a lock
makes each line whole), a line that a power cut tore is as good as never written: what it announced was not done yet. A change is noted
once, however often it is made: what counts is how the host was before the first time.

    {"kind": "sysctl", "name": "net/ipv4/ip_forward", "before": "0", "after": "1"}

`before` is null for what was not there, `after` null for what may change as it likes and is still ours. A file that was there is kept as
a copy beside the receipt and comes back from it. Who undoes what is not decided here.
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from edgekube.lib.files import sync_folder

_FILE = "receipt.jsonl"
_KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Change:
    """One line: what of which kind was how, and how we made it."""

    kind: str
    name: str
    before: str | None = None
    after: str | None = None


class Notes(Protocol):
    """Where changes are noted. Returns when the note is durable; raises OSError: then nothing may be changed."""

    def note(self, kind: str, name: str, *, before: str | None = None, after: str | None = None) -> None: ...


class NoNotes:
    """For what needs no receipt: tests, and hosts that are thrown away."""

    def note(self, kind: str, name: str, *, before: str | None = None, after: str | None = None) -> None:
        return


class Receipt:
    """The receipt in `folder`; safe to use from several threads. The file is read at the first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, str], Change] | None = None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        return self.folder / _FILE

    def note(self, kind: str, name: str, *, before: str | None = None, after: str | None = None) -> None:
        """Write down, unless it is known already. A new `after` is a line of its own; `before` stays what it was."""
        self.note_all([Change(kind, name, before, after)])

    def note_all(self, changes: Iterable[Change]) -> None:
        """The same for many, with one sync."""
        with self._lock:
            known, new = self._load(), []
            for change in changes:
                found = known.get((change.kind, change.name))
                if found is None or found.after != change.after:
                    new.append(change if found is None else replace(change, before=found.before))
            if new:
                self._append(new)
                known.update({(change.kind, change.name): change for change in new})

    def _load(self) -> dict[tuple[str, str], Change]:
        if self._known is None:
            self._known = _first_of(self._read())
        return self._known

    def note_file(self, path: Path, *, after: str | None = None) -> None:
        """Before `path` is written: what was there is kept. The folders it will be in are noted as well, if they are to be made."""
        self.note_folders(path.parent)
        with self._lock:
            known = ("file", str(path)) in self._load()
        before = None if known else self._keep(path)
        self.note("file", str(path), before=before, after=after)

    def note_folders(self, folder: Path) -> None:
        """Before `folder` is made: those of it and its parents that are not there."""
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        self.note_all(Change("folder", str(one)) for one in reversed(missing))

    def changes(self) -> Sequence[Change]:
        """Each thing once, in the order of the first change; with its first `before` and its last `after`."""
        return list(_first_of(self._read()).values())

    def kept(self, name: str) -> Path:
        """Where the copy of a file is that `before` names."""
        return self.folder / _KEPT / name

    def _keep(self, path: Path) -> str | None:
        """Copy what is there; the copy is complete before its name appears."""
        if not path.is_file() or path.is_symlink():
            return None
        folder = self.folder / _KEPT
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = str(path).strip("/").replace("/", "%")
        aside = folder / f".{name}.{os.getpid()}"
        shutil.copy2(path, aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(folder / name)
        sync_folder(folder)
        return name

    def _read(self) -> Sequence[Change]:
        try:
            text = self.path.read_text(errors="replace")
        except FileNotFoundError:
            return []
        return [change for line in text.splitlines() if (change := _parse(line)) is not None]

    def _append(self, changes: Sequence[Change]) -> None:
        new = not self.path.exists()
        if new:
            changes = [*self._make_folder(), *changes]
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            lines = "".join(json.dumps(asdict(change)) + "\n" for change in changes)
            os.write(descriptor, (b"\n" if torn else b"") + lines.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.folder)
            sync_folder(self.folder.parent)

    def _make_folder(self) -> Sequence[Change]:
        """What had to be made above the data directory is a change of the host as well, only that it can not be noted before."""
        data = self.folder.parent
        missing = [one for one in reversed(data.parents) if not one.exists()]
        for one in missing:
            one.mkdir(exist_ok=True)
        for one in (data, self.folder):
            one.mkdir(mode=0o700, exist_ok=True)
        return [Change("folder", str(one)) for one in missing]


def _first_of(changes: Sequence[Change]) -> dict[tuple[str, str], Change]:
    found: dict[tuple[str, str], Change] = {}
    for change in changes:
        key = change.kind, change.name
        first = found.get(key, change)
        found[key] = Change(change.kind, change.name, first.before, change.after)
    return found


def _parse(line: str) -> Change | None:
    """None for a torn line."""
    try:
        fields = json.loads(line)
        return Change(str(fields["kind"]), str(fields["name"]), fields.get("before"), fields.get("after"))
    except (ValueError, KeyError, TypeError):
        return None
