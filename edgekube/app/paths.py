"""Where an installation keeps its things: derived from data-dir and run-dir alone."""

from dataclasses import dataclass
from pathlib import Path

from edgekube.config import Settings


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
    def pid(self) -> Path:
        return self.run / "edgekube.pid"

    @property
    def images(self) -> Path:
        return self.data / "images"

    def ensure(self) -> None:
        """Make the folders; they are for root only."""
        for folder in (self.data, self.database.parent, self.images, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def paths_of(settings: Settings) -> Paths:
    return Paths(settings.data_dir, settings.run_dir)
