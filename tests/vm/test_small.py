"""A machine of 512 MB runs eight pods: nothing is killed for want of memory, and nothing restarts.

EDGEKUBE_VM_SOAK says for how many seconds (60; a whole run takes 600).
"""

import os
import time

import pytest

from tests.vm.lab import lab, short_folder
from tests.vm.product import Site, deployment, eventually

SOAK = float(os.environ.get("EDGEKUBE_VM_SOAK", "60"))


@pytest.fixture(scope="module")
def site():
    with short_folder() as folder, lab(folder, 1, memory=512) as machines:
        made = Site(folder, machines)
        made.install_server()
        yield made


def available(vm):
    """MiB that the kernel could still hand out."""
    return int(vm.run("awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo"))


def test_eight_pods_and_no_oom(site, capsys):
    vm = site.server
    site.apply(deployment(replicas=8))
    eventually(lambda: site.all_ready(8), patience=900)
    main = vm.run("systemctl show -p MainPID --value edgekube")
    left, end = [], time.monotonic() + SOAK
    while time.monotonic() < end:
        left.append(available(vm))
        site.pods()  # somebody asks now and then
        time.sleep(5)
    resident = vm.run(f"awk '/VmRSS/ {{print int($2 / 1024)}}' /proc/{main}/status")
    with capsys.disabled():
        print(f"\n512 MB, 8 pods, {SOAK:.0f} s: {min(left)} to {max(left)} MiB available, edgekube has {resident} MiB resident")
    pods = site.all_ready(8)
    assert pods, "all still there, none evicted"
    assert sum(pod[4] for pod in pods) == 0, "no restarts"
    assert vm.run("systemctl show -p MainPID --value edgekube") == main
    assert vm.run("dmesg | grep -i -E 'out of memory|oom-kill' || true") == ""
    conditions = {one["type"]: one["status"] for one in site.get("node", "vm1")["status"]["conditions"]}
    assert conditions["MemoryPressure"] == "False"
