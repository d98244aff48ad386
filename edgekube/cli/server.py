"""`edgekube server`: run until told to stop."""

from argparse import Namespace

from edgekube.config import Settings


def main(settings: Settings, arguments: Namespace) -> int:
    """Blocks; returns the exit code."""
    from edgekube.app.process import serve

    return serve(settings)
