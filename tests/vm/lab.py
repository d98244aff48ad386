"""Debian 12 machines for tests: real systemd and cgroup v2, booted by QEMU (without KVM: about ten times slower than the host).

    with machine(folder) as vm:                          # one machine, with a network of its own that leads nowhere
        vm.put(source, "/root/file"); vm.run("systemctl is-active edgekube"); vm.reboot()
    with lab(folder, 2) as (first, second):              # several on one private Ethernet: 10.77.0.1, 10.77.0.2
        first.cut(); first.start(); first.wait()         # a power cut: what was flushed is on the disk, nothing else

Each machine writes to a layer over the disks of `image`, which goes with it. The API of machine N is at `vm.door` on this host.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vm.guest import Guest
from tests.vm.image import image

CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"  # the cheapest to emulate that Debian's programs run on
GATEWAY = "10.77.0.254"  # answers nothing: a site whose uplink is down


def _do(*argv, **options):
    return subprocess.run([str(word) for word in argv], check=True, **options)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine(Guest):
    """One guest. `start` powers it on and returns at once, `wait` when systemd has settled."""

    def __init__(self, folder, number=1, *, switch=None, memory=1280, bare=False, clock=""):
        super().__init__(folder)
        self.number, self.memory, self.bare = number, memory, bare
        self.name = f"vm{number}"
        self.clock = clock  # of its hardware at power on, such as 1970-01-01T00:00:00; "" is the host's
        self.address = f"10.77.0.{number}"
        self.door = _free_port()
        self._switch = switch
        self._qemu = None
        self._boot = ""

    def start(self):
        made = image()
        disk = self.folder / "disk.qcow2"
        if not disk.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            base = made.bare if self.bare else made.node
            _do("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", disk)
            with (self.folder / "parcel.raw").open("wb") as parcel:
                parcel.truncate(2 << 30)
        network = f"ip={self.address}::{GATEWAY}:255.255.255.0:{self.name}:eth0:none ip=10.0.2.15:::255.255.255.0::eth1:none"
        cable = f"vde,id=net,sock={self._switch}" if self._switch else "hubport,id=net,hubid=0"
        # cache=unsafe spares the host's fdatasync alone: what the guest flushed survives SIGKILL, what it did not flush is gone.
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35", "-name", self.name,
            "-accel", "tcg,tb-size=256", "-cpu", CPU, "-m", self.memory,
            "-kernel", made.kernel, "-initrd", made.first,
            "-append", f"console=ttyS0 net.ifnames=0 systemd.hostname={self.name} {network}",
            *(("-rtc", f"base={self.clock}") if self.clock else ()),
            "-drive", f"if=none,id=disk,file={disk},cache=unsafe", "-device", "virtio-blk-pci,drive=disk,serial=disk",
            "-drive", f"if=none,id=parcel,file={self.folder}/parcel.raw,format=raw,cache=unsafe",
            "-device", "virtio-blk-pci,drive=parcel,serial=parcel",
            "-netdev", cable, "-device", f"virtio-net-pci,id=nic,netdev=net,romfile=,mac=52:54:00:77:00:{self.number:02x}",
            "-netdev", f"user,id=host,restrict=on,hostfwd=tcp:127.0.0.1:{self.door}-10.0.2.15:6443",
            "-device", f"virtio-net-pci,netdev=host,romfile=,mac=52:54:00:78:00:{self.number:02x}",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
            "-chardev", f"file,id=console,path={self.folder}/console.log,append=on", "-serial", "chardev:console",
        ]  # fmt: skip
        self._qemu = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL)

    def cut(self):
        """As pulling the plug."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()

    def wait(self, *, patience=400.0):
        """Until it has booted: another boot than the last one that was waited for."""
        deadline = time.monotonic() + patience
        while True:
            time.sleep(0.5)
            try:
                if (boot := self.boot()) != self._boot:
                    self._boot = boot
                    return
            except (OSError, RuntimeError, ValueError):
                if time.monotonic() > deadline or self._qemu.poll() is not None:
                    tail = (self.folder / "console.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"the machine did not come up:\n{tail}") from None

    def reboot(self):
        """In order, through systemd."""
        self.ask("guest-exec", path="/usr/bin/systemctl", arg=["reboot"])  # no answer is waited for: the agent ends too
        self.wait()

    def link(self, plugged):
        """Plug or pull its network cable."""
        self.monitor("set_link", name="nic", up=plugged)

    def written(self):
        """Bytes written to its disk, and flushes of it, since it was powered on."""
        stats = next(disk["stats"] for disk in self.monitor("query-blockstats") if disk.get("device") == "disk")
        return stats["wr_bytes"], stats["flush_operations"]

    def cpu(self):
        """Seconds of this host's CPU it has cost since it was powered on."""
        fields = Path(f"/proc/{self._qemu.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def monitor(self, name, **arguments):
        """One command to QEMU itself."""
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(self.folder / "qmp"))
            stream = door.makefile("rw")
            stream.readline()
            for command, words in (("qmp_capabilities", {}), (name, arguments)):
                stream.write(json.dumps({"execute": command, "arguments": words}) + "\n")
                stream.flush()
                while not (answer := json.loads(stream.readline())).keys() & {"return", "error"}:
                    pass  # events come in between
        return answer["return"]


@contextlib.contextmanager
def lab(folder: Path, count: int, **options) -> Iterator[Sequence[Machine]]:
    """Booted guests on one Ethernet, with their disks in `folder`; all gone afterwards. The path of `folder` is short (sockets)."""
    image()
    switch = folder / "switch"
    ethernet = subprocess.Popen(["vde_switch", "-s", str(switch), "-m", "600"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    machines = [Machine(folder / f"vm{number}", number, switch=switch, **options) for number in range(1, count + 1)]
    try:
        while not (switch / "ctl").exists():
            assert ethernet.poll() is None, "vde_switch has ended"
            time.sleep(0.05)
        for one in machines:
            one.start()
        for one in machines:
            one.wait()
        yield machines
    finally:
        for one in machines:
            one.cut()
            shutil.copy(one.folder / "console.log", folder / f"{one.name}.log")
            shutil.rmtree(one.folder)
        ethernet.kill()
        ethernet.wait()


@contextlib.contextmanager
def machine(folder: Path, **options) -> Iterator[Machine]:
    """One booted guest, alone."""
    made = Machine(folder / "vm1", **options)
    made.start()
    try:
        made.wait()
        yield made
    finally:
        made.cut()
        shutil.rmtree(made.folder)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for a lab; kept if EDGEKUBE_VM_KEEP is set, for a look at the consoles."""
    name = tempfile.mkdtemp(prefix="ekvm")
    try:
        yield Path(name)
    finally:
        if not os.environ.get("EDGEKUBE_VM_KEEP"):
            shutil.rmtree(name)
