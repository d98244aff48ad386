"""All checks in the order a person reads them, and the remedies of what they found."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekube.app import preflight
from edgekube.app.checks.cgroups import check_controllers
from edgekube.app.checks.clock import check_clock
from edgekube.app.checks.disk import check_disk
from edgekube.app.checks.finding import Finding
from edgekube.app.checks.kernel import check_kernel, loads
from edgekube.app.checks.machine import check_architecture, check_memory, check_name
from edgekube.app.checks.programs import check_programs, installs
from edgekube.app.firewall import examine_firewall
from edgekube.config import Settings
from edgekube.lib.receipt import Receipt

CHECKS = (
    check_architecture, check_memory, check_name, check_clock, check_kernel, check_controllers, check_programs, check_disk,
)  # fmt: skip


def examine_all(settings: Settings, *, agent: bool) -> list[Finding]:
    """What decides a start, then everything else. A check that fails itself is a finding, not an end."""
    found = [_with_remedy(one) for one in preflight.examine(settings, agent=agent)]
    for check in CHECKS:
        try:
            found += check(settings)
        except (OSError, ValueError, IndexError) as error:
            found.append(Finding(check.__name__.removeprefix("check_"), False, f"this could not be looked at: {error}", fatal=False))
    return [*found, *examine_firewall(settings, agent=agent)]


def _with_remedy(found: Finding) -> Finding:
    """Missing programs can be installed, missing modules loaded."""
    if found.ok:
        return found
    package = re.search(r"install the package ([\w.+-]+)", f"{found.text} {found.fix}")
    module = re.match(r"modprobe ([\w-]+)", found.fix)
    if package is not None:
        return replace(found, remedy=installs(package[1]))
    return replace(found, remedy=loads(module[1])) if module is not None else found


def apply_remedies(found: Sequence[Finding], receipt: Receipt, say: Callable[[str], None]) -> bool:
    """Do what is safe to do; whether anything was done. What fails is told and left."""
    done = False
    for one in found:
        if one.ok or one.remedy is None:
            continue
        try:
            one.remedy.do(receipt)
        except OSError as error:
            say(f"not fixed: {one.remedy.what}: {error.strerror or error}")
            continue
        say(f"fixed: {one.remedy.what}")
        done = True
    return done
