"""Whole machines (tests.vm): how long installing and starting take in a small guest, and what it writes to its disk when nothing happens.

An emulated guest (QEMU without KVM) is about ten times slower than the host, so times are good for comparing with each other alone; the
bytes, counted by QEMU at the virtual disk, are what an SD card would get: journal and metadata of ext4 and systemd's own writes included,
which is why the same machine is measured before anything is installed as well. `EDGEKUBE_BENCH_IDLE` is the idle time in seconds (600).
"""

import os
import time

from tests.bench.node import row
from tests.vm.lab import lab, short_folder
from tests.vm.product import Site, deployment, eventually

IDLE = float(os.environ.get("EDGEKUBE_BENCH_IDLE", "600"))
PODS = 4


def idle(vm, seconds):
    """MB written and flushes of the disk per 30 minutes, and seconds of the guest's CPU per minute."""
    vm.run("sync")
    before, busy, began = vm.written(), vm.cpu(), time.monotonic()
    time.sleep(seconds)
    after, spent, took = vm.written(), vm.cpu() - busy, time.monotonic() - began
    per = 1800 / took
    return (after[0] - before[0]) / 1e6 * per, (after[1] - before[1]) * per, spent / took * 60


def show(what, found):
    megabytes, flushes, cpu = found
    row(f"{what}: MB / flushes in 30 min", f"{megabytes:.1f} / {flushes:.0f}", f"scaled from {IDLE:.0f} s; {cpu:.1f} s of host CPU a minute")


def main():
    with short_folder() as folder:
        began = time.monotonic()
        with lab(folder, 1) as (vm,):
            row("power on to systemd settled, nothing installed (s)", f"{time.monotonic() - began:.0f}", "packages are there")
            show("idle machine without edgekube", idle(vm, IDLE / 2))
            site = Site(folder, [vm])
            row("install.sh to node Ready (s)", f"{site.install_server():.0f}", "program unpacked, units, first start")
            began = time.monotonic()
            site.apply(deployment(replicas=PODS))
            eventually(lambda: site.all_ready(PODS), pause=0.5)
            row(f"apply to {PODS} pods Ready (s)", f"{time.monotonic() - began:.0f}", "image is there")
            row("exec to ready, second start (s)", f"{restart(vm):.1f}", "systemctl restart: returns with READY=1")
            time.sleep(60)
            show(f"idle with edgekube and {PODS} pods", idle(vm, IDLE))
            before = site.pods()
            vm.cut()
            began = time.monotonic()
            vm.start()
            vm.wait()
            booted = time.monotonic() - began
            eventually(lambda: site.all_ready(PODS, since=before), pause=0.5, patience=600)
            row("power on to systemd settled, with edgekube (s)", f"{booted:.0f}", "after a power cut")
            row(f"power on to {PODS} pods Ready (s)", f"{time.monotonic() - began:.0f}", "after a power cut")
            resident = vm.run("awk '/VmRSS/ {print int($2 / 1024)}' /proc/$(systemctl show -p MainPID --value edgekube)/status")
            row("resident memory of the server (MiB)", resident, "the built file")


def restart(vm):
    began = time.monotonic()
    vm.run("systemctl restart edgekube")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
