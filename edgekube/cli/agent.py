"""`edgekube agent`: join a cluster, once, and be a node of it until told to stop."""

from argparse import Namespace
from dataclasses import replace

from edgekube.config import Settings


def main(settings: Settings, arguments: Namespace) -> int:
    """Blocks; returns the exit code."""
    from edgekube.app.process import serve
    from edgekube.lib.argv import conceal

    conceal(settings.token)
    return serve(replace(settings, disable_agent=False), agent=True)
