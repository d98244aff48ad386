"""`edgekube kubectl ...`: the host's kubectl with the admin kubeconfig."""

import os
from collections.abc import Sequence

from edgekube.cli.localapi import no_server
from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.process import ProgramMissing, clean_environment, require


def main(settings: Settings, arguments: Sequence[str]) -> int:
    """Becomes kubectl."""
    try:
        program = require("kubectl", package="kubernetes-client")
    except ProgramMissing as error:
        raise Failure(str(error)) from None
    if "KUBECONFIG" not in os.environ and not os.access(settings.write_kubeconfig, os.R_OK):
        raise Failure(_unreadable(settings))
    environment = clean_environment({"KUBECONFIG": os.environ.get("KUBECONFIG", str(settings.write_kubeconfig))})
    os.execve(program, ["kubectl", *arguments], environment)


def _unreadable(settings: Settings) -> str:
    if os.path.exists(settings.write_kubeconfig):
        return f"{settings.write_kubeconfig} is for root only: try sudo"
    return no_server(settings, settings.write_kubeconfig)
