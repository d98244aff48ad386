"""`edgekube setup`: the part of installing that the program does itself: remember the flags, keep the token, write the units.

Called by packaging/install.sh; safe to run again. The token comes in EDGEKUBE_TOKEN, never on the command line.
"""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from edgekube import config
from edgekube.app.paths import paths_of
from edgekube.app.setup import UNIT_FOLDER, ensure_config, ensure_token, ensure_units, given_values, is_systemd, unit_name
from edgekube.cli.main import CONFIG_FILE, Failure
from edgekube.config import Settings
from edgekube.lib.receipt import Receipt

_TOKEN_FILE = Path("/etc/edgekube/join-token")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--as", dest="role", choices=("server", "agent"), required=True, help="what this machine is to become")


def main(settings: Settings, arguments: Namespace) -> int:
    """Prints the name of the unit to start, if there is systemd."""
    if os.geteuid() != 0:
        raise Failure("setting up a service needs root: run it with sudo")
    receipt = Receipt(paths_of(settings).receipt)
    named = getattr(arguments, "config", None) or os.environ.get("EDGEKUBE_CONFIG")
    path = Path(named or CONFIG_FILE)
    keys = [config.key_of(spec.name) for spec in config.flags_of(Settings)]
    flags = {config.key_of(name): value for name, value in vars(arguments).items()}
    values = given_values(flags, os.environ, keys, spared=("token", "token-file"))
    try:
        if settings.token:
            ensure_token(_TOKEN_FILE, settings.token, receipt)
        if settings.token or settings.token_file:
            values["token-file"] = str(_TOKEN_FILE) if settings.token else settings.token_file
        ensure_config(path, values, receipt)
        if is_systemd():
            ensure_units(
                arguments.role,
                config=path if named else None,
                data_dir=settings.data_dir,
                grace=settings.shutdown_grace_seconds,
                receipt=receipt,
                folder=UNIT_FOLDER,
            )
            print(unit_name(arguments.role))
    except FileExistsError as error:
        raise Failure(error.strerror or str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename or path} can not be written: {error.strerror}") from None
    return 0
