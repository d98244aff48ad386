"""`edgekube uninstall`: stop, then remove everything edgekube made on this machine."""

import asyncio
import os
from argparse import ArgumentParser, Namespace

from edgekube.app.removal import remove_all
from edgekube.cli import stop
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.files import MountInside


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", default=False, help="really do it: all pods and the whole state are lost")
    parser.add_argument("--delete-volumes", action="store_true", default=False, help="delete the pods' persistent volumes too")


def main(settings: Settings, arguments: Namespace) -> int:
    """Idempotent; prints what it removed."""
    if not arguments.yes:
        raise Failure(f"this removes all pods and {settings.data_dir}: run it with --yes")
    if os.geteuid() != 0:
        raise Failure("removing links, rules and mounts needs root: run it with sudo")
    stop.main(settings, arguments)
    try:
        asyncio.run(remove_all(settings, delete_volumes=arguments.delete_volumes, say=_removed, leave=_left))
    except MountInside as error:
        raise Failure(str(error)) from None
    return 0


def _removed(what: str) -> None:
    print(f"removed: {what}", flush=True)


def _left(what: str) -> None:
    print(f"left: {what}", flush=True)
