"""A Debian 12 machine for tests: real systemd and cgroup v2, booted by QEMU (without KVM: about ten times slower than the host).

    with machine(folder) as vm:
        vm.put(source, "/root/file"); vm.run("systemctl is-active edgekube"); vm.reboot()

`image()` makes the disk once (a minute or two; debootstrap through the archive this machine's apt uses) and keeps it in EDGEKUBE_VM_DIR.
Each machine writes to a layer over it, which goes with the machine. Commands go through the QEMU guest agent, so they need no network.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(os.environ.get("EDGEKUBE_VM_DIR", "/var/tmp/edgekube-vm"))  # half a gigabyte that outlives a run
GUEST = "systemd,systemd-sysv,udev,dbus,kmod,qemu-guest-agent,procps,iproute2,nftables,conntrack,python3,curl,ca-certificates,podman,crun,conmon,netavark,iptables"
UNWANTED = (
    "systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer",
    "dpkg-db-backup.timer", "podman-auto-update.timer", "podman-auto-update.service", "podman-restart.service", "systemd-logind.service",
)  # fmt: skip
DRIVERS = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")  # in the order they load
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"  # the cheapest to emulate that Debian's programs run on
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _do(*argv, **options):
    return subprocess.run([str(word) for word in argv], check=True, **options)


def image():
    """Make disk, kernel and first RAM disk unless they are there."""
    if (FOLDER / "done").exists():
        return
    root, kernel = FOLDER / "root", FOLDER / "kernel"
    for folder in (root, kernel):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    asked = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True)
    archive = next(line for line in asked.stdout.split() if line.rstrip("/").endswith("/debian"))
    with (FOLDER / "debootstrap.log").open("wb") as log:
        _do("debootstrap", "--variant=minbase", f"--include={GUEST}", "bookworm", root, archive, stdout=log, stderr=log)
    _unpack_kernel(kernel, root)
    _settle(root)
    with (FOLDER / "disk.raw").open("wb") as disk:
        disk.truncate(8 << 30)
    _do("mkfs.ext4", "-q", "-F", "-d", root, FOLDER / "disk.raw")
    shutil.rmtree(root)
    shutil.rmtree(kernel)
    (FOLDER / "done").touch()


def _unpack_kernel(folder, root):
    """Debian's cloud kernel, unpacked and not installed; a RAM disk of busybox loads the driver of the disk and hands over."""
    found = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True)
    package = next(word for word in found.stdout.split() if word.startswith("linux-image-6"))
    _do("apt-get", "download", "-qq", package, "busybox-static", cwd=folder)
    for archive in folder.glob("*.deb"):
        _do("dpkg-deb", "-x", archive, folder / "files")
    shutil.copy(next(folder.glob("files/boot/vmlinuz-*")), FOLDER / "vmlinuz")
    _do("cp", "-a", folder / "files/lib/modules", root / "usr/lib")
    _do("depmod", "-b", root, package.removeprefix("linux-image-"))
    first = folder / "first"
    for name in ("dev", "root"):
        (first / name).mkdir(parents=True)
    shutil.copy(folder / "files/bin/busybox", first)
    for driver in DRIVERS:
        shutil.copy(next(folder.glob(f"files/lib/modules/**/{driver}.ko")), first)
    loads = "".join(f"/busybox insmod /{driver}.ko\n" for driver in DRIVERS)
    mounts = "/busybox mount -t devtmpfs dev /dev\n/busybox mount -t ext4 /dev/vda /root\nexec /busybox switch_root /root /sbin/init\n"
    (first / "init").write_text(f"#!/busybox sh\n{loads}{mounts}")
    (first / "init").chmod(0o755)
    _do("sh", "-c", "find . | cpio -o -H newc --quiet | gzip -1 > ../../first.gz", cwd=first)


def _settle(root):
    """A machine id of its own at the first boot, an address from the kernel's command line, no units that only cost time."""
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    agent = root / "etc/systemd/system/qemu-guest-agent.service.d"
    agent.mkdir()
    (agent / "stop.conf").write_text("[Service]\nTimeoutStopSec=2\n")  # it does not end while it is asked things
    _do("chroot", root, "systemctl", "--quiet", "enable", "systemd-networkd", "systemd-network-generator")
    _do("chroot", root, "systemctl", "--quiet", "mask", *UNWANTED)


class Machine:
    """One guest. `start` returns at once, `wait` when systemd has settled."""

    def __init__(self, folder):
        self.folder = folder
        self._qemu = None

    def start(self):
        _do("qemu-img", "create", "-q", "-f", "qcow2", "-b", FOLDER / "disk.raw", "-F", "raw", self.folder / "disk.qcow2")
        with (self.folder / "parcel.raw").open("wb") as parcel:
            parcel.truncate(1 << 30)
        address = "ip=10.0.2.15::10.0.2.2:255.255.255.0:vm:eth0:none"
        argv = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35",
            "-accel", "tcg,tb-size=256", "-cpu", CPU, "-m", "1280",
            "-kernel", FOLDER / "vmlinuz", "-initrd", FOLDER / "first.gz",
            "-append", f"console=ttyS0 net.ifnames=0 systemd.hostname=vm {address}",
            "-drive", f"if=none,id=disk,file={self.folder}/disk.qcow2,cache=unsafe", "-device", "virtio-blk-pci,drive=disk",
            "-drive", f"if=none,id=parcel,file={self.folder}/parcel.raw,format=raw,cache=unsafe",
            "-device", "virtio-blk-pci,drive=parcel,serial=parcel",
            "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-serial", f"file:{self.folder}/console.log",
        ]  # fmt: skip
        self._qemu = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL)

    def stop(self):
        """As pulling the plug."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()

    def ask(self, name, *, patience=20.0, **arguments):
        """One question to the agent. Raises OSError if it does not answer, RuntimeError if it refuses."""
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(patience)
            door.connect(str(self.folder / "agent"))
            stream = door.makefile("rwb")
            stream.write(b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": 1}}\n')  # drops what an earlier question left
            stream.flush()
            while (byte := stream.read(1)) != b"\xff":
                if not byte:
                    raise OSError("the agent has closed its door")
            stream.readline()
            stream.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"]["desc"])
        return answer["return"]

    def run(self, line, *, check=True, patience=300.0):
        """A shell line as root; its output, of both kinds. Raises RuntimeError with it if the line fails."""
        arguments = ["-k", "5", f"{patience:g}", "sh", "-c", line]
        environment = [f"PATH={PATH}", "HOME=/root", "KUBECONFIG=/etc/edgekube/kubeconfig.yaml"]
        pid = self.ask("guest-exec", path="/usr/bin/timeout", arg=arguments, env=environment, **{"capture-output": True})["pid"]
        while not (state := self.ask("guest-exec-status", pid=pid))["exited"]:
            time.sleep(0.2)
        text = "".join(base64.b64decode(state.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data")).strip()
        if check and state.get("exitcode") != 0:
            raise RuntimeError(f"{line}: {state.get('exitcode')}\n{text}")
        return text

    def wait(self, *, other_than="", patience=300.0):
        """Until it has booted (another boot than `other_than`); the id of this boot."""
        deadline = time.monotonic() + patience
        while True:
            time.sleep(1)
            try:
                boot = self.run("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait >&2 || true").split()[0]
                if boot != other_than:
                    return boot
            except (OSError, RuntimeError, ValueError):
                if time.monotonic() > deadline or self._qemu.poll() is not None:
                    tail = (self.folder / "console.log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"the machine did not come up:\n{tail}") from None

    def reboot(self):
        """In order, through systemd."""
        before = self.run("cat /proc/sys/kernel/random/boot_id")
        self.ask("guest-exec", path="/usr/bin/systemctl", arg=["reboot"])  # no answer is waited for: the agent ends too
        self.wait(other_than=before)

    def put(self, source, target):
        """A file or folder to the full path `target`, as a tar on the second disk."""
        with (self.folder / "parcel.raw").open("r+b") as parcel, tarfile.open(fileobj=parcel, mode="w|") as tar:
            tar.add(source, arcname=str(target).lstrip("/"))
        disk = "/dev/disk/by-id/virtio-parcel"
        self.run(f"blockdev --flushbufs {disk} && tar -xf {disk} -C / --no-same-owner && sync")


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A booted guest with its disk in `folder`; both are gone afterwards."""
    image()
    made = Machine(folder)
    made.start()
    try:
        made.wait()
        yield made
    finally:
        made.stop()
        for name in ("disk.qcow2", "parcel.raw"):
            (folder / name).unlink(missing_ok=True)
