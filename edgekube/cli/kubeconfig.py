"""`edgekube kubeconfig`: the admin kubeconfig on stdout, to be kept elsewhere."""

import sys
from argparse import ArgumentParser, Namespace

from edgekube.cli.localapi import no_server
from edgekube.cli.main import Failure
from edgekube.config import Settings


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--server", metavar="URL", default="", help="address to write into it, as seen from where it will be used")


def main(settings: Settings, arguments: Namespace) -> int:
    """Print it; `--server` replaces the address."""
    try:
        text = settings.write_kubeconfig.read_text()
    except FileNotFoundError:
        raise Failure(no_server(settings, settings.write_kubeconfig)) from None
    except PermissionError:
        raise Failure(f"{settings.write_kubeconfig} is for root only: try sudo") from None
    if arguments.server:
        import yaml

        found = yaml.safe_load(text)
        for cluster in found["clusters"]:
            cluster["cluster"]["server"] = arguments.server
        text = yaml.safe_dump(found, sort_keys=False)
    sys.stdout.write(text)
    return 0
