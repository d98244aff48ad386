"""Where an installation keeps its things: derived from data-dir and run-dir alone."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.config import Settings
from edgekube.lib.receipt import Change, Receipt

_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class Paths:
    """`data` survives reboots; `run` should be a tmpfs and may vanish with one."""

    data: Path
    run: Path

    @property
    def database(self) -> Path:
        return self.data / "db" / "state.db"

    @property
    def pki(self) -> Path:
        return self.data / "pki"

    @property
    def agent(self) -> Path:
        """What makes this machine an agent: its key, its certificates, what it knows of its cluster."""
        return self.data / "agent"

    @property
    def receipt(self) -> Path:
        """What was changed on this host: it outlives everything else here (lib/receipt.py)."""
        return self.data / "host"

    @property
    def pid(self) -> Path:
        return self.run / "edgekube.pid"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def manifests(self) -> Path:
        return self.data / "manifests"

    @property
    def is_default(self) -> bool:
        """The one installation of this machine; others (tests, several nodes on one machine) keep to their own folders."""
        return self.data == _DEFAULT.data_dir

    @property
    def pod_logs(self) -> Path:
        """Where kubectl's neighbours (log shippers) expect them."""
        return Path("/var/log/pods") if self.is_default else self.data / "logs" / "pods"

    @property
    def container_links(self) -> Path:
        return Path("/var/log/containers") if self.is_default else self.data / "logs" / "containers"

    def cgroup_root(self, instance: str) -> str:
        return "kubepods" if self.is_default else f"kubepods-{instance}"

    def ensure(self, *, agent: bool = False) -> None:
        """Make the folders of a server or an agent; they are for root only. All or none: raises OSError."""
        made: list[Path] = []
        try:
            for folder in (self.data, self.agent if agent else self.database.parent, self.images, self.run):
                missing = [one for one in (folder, *folder.parents) if not one.exists()]
                for one in reversed(missing):
                    one.mkdir(mode=0o700, exist_ok=True)
                    made.append(one)
                folder.mkdir(mode=0o700, exist_ok=True)  # also finds what is there but no folder
            self._note_parents(made)
        except OSError:
            for one in reversed(made):
                with contextlib.suppress(OSError):
                    one.rmdir()
            raise

    def _note_parents(self, made: Sequence[Path]) -> None:
        """Above our own folders, unless they came with the receipt, which notes its own."""
        parents = [one for one in made if one in self.data.parents or one in self.run.parents]
        if parents:
            Receipt(self.receipt).note_all(Change("folder", str(one)) for one in parents)


def paths_of(settings: Settings) -> Paths:
    return Paths(settings.data_dir, settings.run_dir)
