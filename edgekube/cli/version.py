"""`edgekube version`."""

import platform
from argparse import Namespace

from edgekube import KUBERNETES_VERSION, __version__
from edgekube.config import Settings


def main(settings: Settings, arguments: Namespace) -> int:
    """Print what this is."""
    print(f"edgekube {__version__} (Kubernetes {KUBERNETES_VERSION}, Python {platform.python_version()}, {platform.machine()})")
    return 0
