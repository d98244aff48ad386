"""The disks of the test machines: Debian 12 with its own kernel, made once per machine and recipe, by debootstrap.

`image()` makes a base disk (systemd, nothing that edgekube needs), the deb files of what it needs, and a second disk on which those are
installed. Two minutes the first time, through the archive this machine's apt uses; afterwards they lie in EDGEKUBE_VM_DIR, in a folder
named after the recipe (this file), and are only read. A build that was broken off leaves nothing that is taken for done, and no mounts.

As a program it makes an image with more in it, for other uses (vagrant/box.sh): python3 tests/vm/image.py FOLDER [--include a,b] [--overlay DIR]
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("EDGEKUBE_VM_DIR", "/var/tmp/edgekube-vm"))  # a gigabyte that outlives a run
BASE = "systemd,systemd-sysv,udev,dbus,kmod,qemu-guest-agent,procps,iproute2,ca-certificates"
NEEDED = ("podman", "conmon", "crun", "runc", "nftables", "libnftables1", "iproute2", "ca-certificates")  # what install.sh asks apt for
TOOLS = ("python3", "curl", "iptables", "conntrack", "ipvsadm")  # what only tests want
UNWANTED = (  # units that only cost time
    "systemd-networkd-wait-online.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "dpkg-db-backup.timer", "podman-auto-update.timer", "podman-auto-update.service", "podman-restart.service",
    "systemd-logind.service", "systemd-pstore.service", "systemd-binfmt.service", "getty@tty1.service", "ipvsadm.service",
)  # fmt: skip
DRIVERS = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")  # in the order they load
ENVIRONMENT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


@dataclass(frozen=True)
class Image:
    """What one build leaves."""

    folder: Path

    @property
    def bare(self):
        return self.folder / "bare.raw"

    @property
    def node(self):
        return self.folder / "node.raw"

    @property
    def kernel(self):
        return self.folder / "vmlinuz"

    @property
    def first(self):
        """The RAM disk that loads the driver of the disk and hands over."""
        return self.folder / "first.gz"

    @property
    def debs(self):
        """What `node` has over `bare` without the tests' tools: for an installation without a network."""
        return self.folder / "debs"


def image():
    """The disks, made unless they are there. Several callers at once make them once."""
    made = Image(CACHE / hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12])
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.folder.exists():
            # In namespaces of its own: if this is killed, its processes and the mounts of debootstrap go with it.
            _do("unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, __file__, made.folder, "--bare")
    return made


def build(folder, *, include="", overlay=None, bare=False):
    """Everything into `folder`, which exists and is empty. `overlay` is laid over the file system before the disks are made."""
    root = folder / "root"
    with (folder / "build.log").open("wb") as log:
        packages = ",".join(filter(None, (BASE, include)))
        _do("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root, _archive(), stdout=log, stderr=log)
        _unpack_kernel(folder, root)
        _settle(root)
        _do("chroot", root, "apt-get", "update", "-q", stdout=log, stderr=log)
        _do("chroot", root, "apt-get", "install", "-y", "-q", "--download-only", "--no-install-recommends", *NEEDED, stdout=log, stderr=log)
        shutil.copytree(root / "var/cache/apt/archives", folder / "debs", ignore=shutil.ignore_patterns("lock", "partial"))
        if bare:
            _disk(root, folder / "bare.raw")
        _executable(root / "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")  # no service is started in the folder
        _do("chroot", root, "apt-get", "install", "-y", "-q", "--no-install-recommends", *NEEDED, *TOOLS, stdout=log, stderr=log)
        (root / "usr/sbin/policy-rc.d").unlink()
        _do("chroot", root, "apt-get", "clean")
        shutil.rmtree(root / "var/lib/apt/lists")
        _do("chroot", root, "systemctl", "--quiet", "disable", "podman.service")
        if overlay:
            _do("cp", "-a", f"{overlay}/.", root)
        _disk(root, folder / "node.raw")
    shutil.rmtree(root)


def _do(*argv, **options):
    return subprocess.run([str(word) for word in argv], check=True, env=ENVIRONMENT, **options)


def _executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def _archive():
    """The Debian archive this machine's own apt uses."""
    asked = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True)
    return next(line for line in asked.stdout.split() if line.rstrip("/").endswith("/debian"))


def _disk(root, path):
    with path.open("wb") as disk:
        disk.truncate(8 << 30)  # sparse: half a gigabyte of it is used
    _do("mkfs.ext4", "-q", "-F", "-L", "root", "-d", root, path)


def _unpack_kernel(folder, root):
    """Debian's cloud kernel, unpacked and not installed; a RAM disk of busybox loads the driver of the disk and hands over."""
    kernel = folder / "kernel"
    kernel.mkdir()
    found = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], check=True, capture_output=True, text=True)
    package = next(word for word in found.stdout.split() if word.startswith("linux-image-6"))
    _do("apt-get", "download", "-qq", package, "busybox-static", cwd=kernel, stderr=subprocess.DEVNULL)
    for archive in kernel.glob("*.deb"):
        _do("dpkg-deb", "-x", archive, kernel / "files")
    shutil.copy(next(kernel.glob("files/boot/vmlinuz-*")), folder / "vmlinuz")
    _do("cp", "-a", kernel / "files/lib/modules", root / "usr/lib")
    _do("depmod", "-b", root, package.removeprefix("linux-image-"))
    first = kernel / "first"
    for name in ("dev", "root"):
        (first / name).mkdir(parents=True)
    shutil.copy(kernel / "files/bin/busybox", first)
    for driver in DRIVERS:
        shutil.copy(next(kernel.glob(f"files/lib/modules/**/{driver}.ko")), first)
    loads = "".join(f"/busybox insmod /{driver}.ko\n" for driver in DRIVERS)
    mounts = "/busybox mount -t devtmpfs dev /dev\n/busybox mount -t ext4 /dev/vda /root\nexec /busybox switch_root /root /sbin/init\n"
    _executable(first / "init", f"#!/busybox sh\n{loads}{mounts}")
    _do("sh", "-c", f"find . | cpio -o -H newc --quiet | gzip -1 > {folder}/first.gz", cwd=first)
    shutil.rmtree(kernel)


def _settle(root):
    """A machine id of its own at the first boot, addresses from the kernel's command line, no units that only cost time."""
    (root / "etc/machine-id").write_text("")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)  # or all machines would take this one
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    agent = root / "etc/systemd/system/qemu-guest-agent.service.d"
    agent.mkdir()
    (agent / "stop.conf").write_text("[Service]\nTimeoutStopSec=2\n")  # it does not end while it is asked things
    cable = root / "etc/systemd/network/90-eth0.network.d"
    cable.mkdir()
    (cable / "keep.conf").write_text("[Network]\nIgnoreCarrierLoss=yes\n")  # a pulled cable does not take the address away
    _do("chroot", root, "systemctl", "--quiet", "enable", "systemd-networkd", "systemd-network-generator")
    _do("chroot", root, "systemctl", "--quiet", "mask", *UNWANTED)


def main():
    parser = argparse.ArgumentParser(description="make a disk (node.raw), a kernel (vmlinuz) and a first RAM disk (first.gz)")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bare", action="store_true", help="make bare.raw too, on which nothing is installed that edgekube needs")
    parser.add_argument("--include", default="", help="more packages, with commas")
    parser.add_argument("--overlay", type=Path, help="laid over the file system")
    options = parser.parse_args()
    new = options.folder.with_name(f"{options.folder.name}.new").resolve()
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    build(new, include=options.include, overlay=options.overlay, bare=options.bare)
    new.rename(options.folder)


if __name__ == "__main__":
    main()
