"""What is said to a guest: commands through the QEMU guest agent (so they need no network in it), files as a tar on a second disk."""

import base64
import json
import socket
import tarfile
import threading
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PARCEL = "/dev/disk/by-id/virtio-parcel"


class Refused(RuntimeError):
    """A command in the guest failed; its output is the message."""


class Guest:
    """The inside of a machine whose sockets and disks are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._talking = threading.Lock()  # the agent takes one caller at a time

    def ask(self, name, *, patience=30.0, **arguments):
        """One question to the agent. Raises OSError if it does not answer, RuntimeError if it refuses."""
        with self._talking, socket.socket(socket.AF_UNIX) as door:
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
            if not (line := stream.readline()):
                raise OSError("the agent has closed its door")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"]["desc"])
        return answer["return"]

    def run(self, line, *, check=True, patience=300.0):
        """A shell line as root; its output, of both kinds. Raises Refused with it if the line fails."""
        arguments = ["-k", "5", f"{patience:g}", "sh", "-c", line]
        environment = [f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8", "KUBECONFIG=/etc/edgekube/kubeconfig.yaml"]
        pid = self.ask("guest-exec", path="/usr/bin/timeout", arg=arguments, env=environment, **{"capture-output": True})["pid"]
        while not (state := self.ask("guest-exec-status", pid=pid))["exited"]:
            time.sleep(0.2)
        text = "".join(base64.b64decode(state.get(key, "")).decode(errors="replace") for key in ("out-data", "err-data")).strip()
        if check and state.get("exitcode") != 0:
            raise Refused(f"{line}: {state.get('exitcode')}\n{text}")
        return text

    def put(self, source, target):
        """A file or folder to the full path `target`; on its disk when this returns."""
        with (self.folder / "parcel.raw").open("r+b") as parcel, tarfile.open(fileobj=parcel, mode="w|") as tar:
            tar.add(source, arcname=str(target).lstrip("/"))
        self.run(f"blockdev --flushbufs {PARCEL} && tar -xf {PARCEL} -C / --no-same-owner && sync")

    def write(self, target, text):
        """A small text file."""
        source = self.folder / "text"
        source.write_text(text)
        self.put(source, target)

    def boot(self):
        """The id of the boot it is in, once systemd has settled."""
        return self.run("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running --wait >&2 || true").split()[0]
