"""What a server tells systemd, heard over a real socket: ready once it is, alive from then on, stopping when it stops."""

import os
import signal
import socket

from tests.kit.cluster import cluster
from tests.kit.requires import needs

pytestmark = needs("root", "netns")


def test_ready_comes_first_then_signs_of_life_then_the_end(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, cluster("--disable-agent", start=False) as c:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        c.start(env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"})
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        c.process.send_signal(signal.SIGSTOP)
        manager.settimeout(0.5)
        silent = False
        for _ in range(5):
            try:
                manager.recv(100)
            except TimeoutError:
                silent = True
                break
        assert silent, "a process that stands still gives no sign"
        c.process.send_signal(signal.SIGCONT)
        manager.settimeout(60)
        assert manager.recv(100) == b"WATCHDOG=1"
        c.process.send_signal(signal.SIGTERM)
        while (told := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert told == b"STOPPING=1"
