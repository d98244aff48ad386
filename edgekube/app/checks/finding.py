"""What a check says."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from edgekube.lib.process import clean_environment
from edgekube.lib.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Remedy:
    """What `edgekube check --fix` does about a finding: safe, noted in the receipt, and fine to do twice. Raises OSError."""

    what: str  # "load the kernel module vxlan"
    do: Callable[[Receipt], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is the cause in words, `proof` what was seen, `fix` what a person can do. `fatal`: a server, or an agent, can not run so."""

    check: str
    ok: bool
    text: str
    fix: str = ""
    fatal: bool = True
    proof: str = ""
    remedy: Remedy | None = None


def ask(*argv: str, timeout: float = 10.0) -> tuple[int, str]:
    """(exit code, all output) of a program of the host; (-1, why) if it is not there or hangs."""
    path = shutil.which(argv[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin:/usr/libexec/podman:/usr/lib/podman")
    if path is None:
        return -1, f"{argv[0]} was not found"
    try:
        done = subprocess.run([path, *argv[1:]], check=False, capture_output=True, text=True, errors="replace", timeout=timeout,
                              stdin=subprocess.DEVNULL, env=clean_environment())  # fmt: skip
    except subprocess.TimeoutExpired:
        return -1, f"{argv[0]} did not answer within {timeout:g} s"
    except OSError as error:
        return -1, f"{argv[0]}: {error.strerror}"
    return done.returncode, (done.stdout + done.stderr).strip()


def must(*argv: str, timeout: float = 300.0) -> None:
    """For remedies: raises OSError with what the program said last."""
    code, text = ask(*argv, timeout=timeout)
    if code != 0:
        lines = text.splitlines()
        raise OSError(code, lines[-1] if lines else f"{argv[0]} failed")
