"""`edgekube kubectl ...`: the host's kubectl with the admin kubeconfig."""

import os
from collections.abc import Sequence

from edgekube.cli.main import Failure
from edgekube.config import Settings
from edgekube.lib.process import ProgramMissing, clean_environment, require


def main(settings: Settings, arguments: Sequence[str]) -> int:
    """Becomes kubectl."""
    try:
        program = require("kubectl", package="kubernetes-client")
    except ProgramMissing as error:
        raise Failure(str(error)) from None
    if not os.access(settings.write_kubeconfig, os.R_OK):
        raise Failure(f"{settings.write_kubeconfig} can not be read: has the server run here, and are you root?")
    environment = clean_environment({"KUBECONFIG": os.environ.get("KUBECONFIG", str(settings.write_kubeconfig))})
    os.execve(program, ["kubectl", *arguments], environment)
