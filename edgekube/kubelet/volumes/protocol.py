"""The words the volume files share."""

from dataclasses import dataclass
from pathlib import Path


class VolumeNotReady(Exception):
    """A volume cannot be set up now; the text goes into a FailedMount event, and the pod waits."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume that is ready: where it is on the host."""

    name: str
    path: Path
    read_only: bool = False  # the volume as a whole, whatever the container says
