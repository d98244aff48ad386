"""Uninstalling leaves the machine as it was: processes, links, routes, rules, mounts, namespaces, cgroups, files."""

import os
import signal
import subprocess
from pathlib import Path

from edgekube.config import Settings
from tests.e2e.manifests import pod, web
from tests.kit import netns as ns
from tests.kit.cluster import cluster, wait_until
from tests.kit.processes import command_lines
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


def picture(c):
    """Everything of the host that a cluster touches."""
    own = Settings(data_dir=c.data, run_dir=c.run_dir, node_name="node-1").instance
    return {
        "network": ns.inside(c.netns, "ip -o addr; ip route show table all; ip rule; ip neigh; nft list ruleset"),
        "sysctls": ns.inside(c.netns, "grep -rs . /proc/sys/net | grep -v -e nf_conntrack_count -e /stable_secret | sort"),
        "mounts": [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(c.base) in line or str(c.run_dir) in line],
        "processes": [args for _, args in command_lines() if str(c.base) in args or str(c.run_dir) in args],
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/kubepods*{own}*") if path.is_dir()),
        "logs": sorted(str(path) for path in Path("/var/log").glob("pods*/*")),
    }  # fmt: skip


def test_nothing_is_left(image):
    with cluster(start=False) as c:
        before = picture(c)
        c.start()
        c.edgekube("images", "import", str(image))
        wait_until(lambda: "ip_forward" in c.edgekube("host", "diff"))
        receipt = (c.data / "host" / "receipt.jsonl").read_bytes()
        c.apply(web(2))
        c.apply(
            pod(
                "memory",
                "sleep 600",
                spec="volumes: [{name: m, emptyDir: {medium: Memory}}]",
                container="volumeMounts: [{name: m, mountPath: /m}]",
            )
        )
        c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        c.kubectl("wait", "--for=condition=Ready", "pod/memory", "--timeout=60s")
        running = picture(c)
        assert (c.data / "host" / "receipt.jsonl").read_bytes() == receipt, "pods cost no notes"
        assert all(running[part] != before[part] for part in ("network", "mounts", "processes", "cgroups"))
        c.kill()
        c.edgekube("uninstall", "--yes")
        assert picture(c) == before
        assert not c.data.exists()
        assert not c.run_dir.exists()
        assert not c.kubeconfig.exists()
        c.edgekube("uninstall", "--yes")


def test_what_was_changed_is_told_and_what_others_changed_stays():
    with cluster(start=False) as c:
        # Turning forwarding on and off sets these along.
        ns.inside(c.netns, "cd /proc/sys/net/ipv4/conf; echo 0 > all/accept_redirects; echo 1 > lo/forwarding")
        before = picture(c)["sysctls"]
        c.start()
        forwards = "as made   sysctl net/ipv4/ip_forward: 0 -> 1"
        told = wait_until(lambda: found if forwards in (found := c.edgekube("host", "diff")) else "")
        assert f"as made   file {c.kubeconfig}" in told
        receipt = (c.data / "host" / "receipt.jsonl").read_bytes()
        c.kill()
        c.start()
        assert (c.data / "host" / "receipt.jsonl").read_bytes() == receipt, "a second start changes nothing that is not noted"
        c.kill()
        assert picture(c)["sysctls"] != before
        ns.inside(c.netns, "echo 2 > /proc/sys/net/ipv4/conf/lo/rp_filter")
        c.edgekube("uninstall", "--yes")
        assert ns.inside(c.netns, "cat /proc/sys/net/ipv4/ip_forward").strip() == "0"
        assert ns.inside(c.netns, "cat /proc/sys/net/ipv4/conf/lo/rp_filter").strip() == "2"
        assert [line for line in picture(c)["sysctls"].splitlines() if "conf/lo/rp_filter" not in line] == [
            line for line in before.splitlines() if "conf/lo/rp_filter" not in line
        ]
        assert "changed nothing" in c.edgekube("host", "diff")


def test_killed_at_any_step_it_completes_when_run_again():
    with cluster(start=False) as c:
        before = picture(c)
        c.start()
        c.kill()
        for step in range(1, 100):
            env = os.environ | {"EDGEKUBE_FAILPOINTS": f"uninstall=kill:{step}"}
            done = subprocess.run(c.argv("uninstall", "--yes"), capture_output=True, text=True, check=False, env=env)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
        assert step > 3
        assert picture(c) == before
        assert not c.data.exists()
        assert not c.kubeconfig.exists()


def test_a_disk_of_its_own_is_emptied_and_stays_mounted():
    with cluster(start=False) as c:
        c.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(c.data)], check=True)
        try:
            c.start()
            c.kill()
            assert f"{c.data} (emptied: it is a mount point)" in c.edgekube("uninstall", "--yes")
            assert c.data.is_mount()
            assert list(c.data.iterdir()) == []
        finally:
            subprocess.run(["umount", str(c.data)], check=True)


def test_it_asks_before_it_removes_anything():
    with cluster(start=False) as c:
        c.data.mkdir()
        done = subprocess.run(c.argv("uninstall"), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 1
        assert "--yes" in done.stderr
        assert c.data.exists()
