"""Where an installation keeps its things: derived from data-dir and run-dir alone."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgekube.config import Settings

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
    def pid(self) -> Path:
        return self.run / "edgekube.pid"

    @property
    def images(self) -> Path:
        return self.data / "images"

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
        except OSError:
            for one in reversed(made):
                with contextlib.suppress(OSError):
                    one.rmdir()
            raise


def paths_of(settings: Settings) -> Paths:
    return Paths(settings.data_dir, settings.run_dir)
