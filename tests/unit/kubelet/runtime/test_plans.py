"""Pure parts of the runtime: container specs, podman's words in ours, cgroup figures, image names."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgekube.kubelet.runtime import info as infos
from edgekube.kubelet.runtime import spec as specs
from edgekube.kubelet.runtime.cgroups import Limits, pod_limits, quota_of, shares_of, weight_of
from edgekube.kubelet.runtime.info import Ending
from edgekube.kubelet.runtime.names import expand
from edgekube.kubelet.runtime.protocol import Mount, PodRef, Resources, Sandbox, Security
from edgekube.kubelet.runtime.settings import RuntimeConfig, containers_conf, registries_conf
from tests.kit.fake_runtime import expand as fake_expand
from tests.kit.runtimes import container

POD = PodRef("u1", "ns", "web")
BOX = Sandbox(POD, "/p/net", "/p/ipc", "/p/uts", "", Path("/p/shm"), datetime(2026, 1, 1, tzinfo=UTC))
HOST = specs.Host("kubepods", memory=True, swap=True, cpu=True, pids=True, cgroup_namespaces=False, lowest_oom_score=-1000)


def plan(box: Sandbox = BOX, host: specs.Host = HOST, **more: Any) -> dict[str, Any]:
    spec = container(box, "sha256:abc", ["run"], log_dir=Path("/log"), **more)
    return specs.plan_create(spec, box, host, hostname="web", hostname_file=Path("/p/hostname"))


def test_a_plain_container() -> None:
    body = plan()
    assert body["name"] == "k8s_main_web_ns_u1_0"
    assert body["image"] == "abc"
    assert body["netns"] == {"nsmode": "path", "value": "/p/net"}
    assert body["pidns"] == {"nsmode": "private"}
    assert body["entrypoint"] == ["run"]
    assert "command" not in body
    assert body["env"] == {"HOSTNAME": "web"}
    assert [mount["destination"] for mount in body["mounts"]] == ["/dev/shm", "/etc/hostname"]
    assert body["log_configuration"]["path"] == "/log/default_web_u1/main/0.log"


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ({"command": [], "args": ["x"]}, "command", ["x"]),
        ({"security": Security(user=5)}, "user", "5"),
        ({"security": Security(user=5, group=6)}, "user", "5:6"),
        ({"security": Security(user_name="app", group=6)}, "user", "app:6"),
        ({"security": Security(group=6)}, "user", "0:6"),
        ({"security": Security(groups=[7, 8])}, "groups", ["7", "8"]),
        ({"security": Security(capabilities_add=["NET_ADMIN", "cap_sys_time"])}, "cap_add", ["CAP_NET_ADMIN", "CAP_SYS_TIME"]),
        ({"security": Security(capabilities_drop=["ALL"])}, "cap_drop", ["ALL"]),
        ({"security": Security(masked_paths=False)}, "unmask", ["ALL"]),
        ({"security": Security(seccomp="unconfined")}, "seccomp_profile_path", "unconfined"),
        ({"security": Security(read_only_root=True)}, "read_only_filesystem", True),
        ({"resources": Resources(oom_score_adj=-997)}, "oom_score_adj", -997),
        ({"devices": ["/dev/fuse"]}, "devices", [{"path": "/dev/fuse"}]),
        ({"tty": True}, "terminal", True),
        ({"pid_of": 77}, "pidns", {"nsmode": "path", "value": "/proc/77/ns/pid"}),
        ({"working_dir": "/w"}, "work_dir", "/w"),
    ],
)
def test_one_wish(more: dict[str, Any], key: str, value: object) -> None:
    if "command" in more:
        spec = replace(container(BOX, "i", [], log_dir=Path("/log")), args=["x"])
        body = specs.plan_create(spec, BOX, HOST, hostname="", hostname_file=None)
        assert "entrypoint" not in body
    else:
        body = plan(**more)
    assert body[key] == value


def test_without_the_right_to_lower_the_oom_score() -> None:
    host = replace(HOST, lowest_oom_score=0)
    assert plan(host=host, resources=Resources(oom_score_adj=-997))["oom_score_adj"] == 0
    assert plan(host=host, resources=Resources(oom_score_adj=500))["oom_score_adj"] == 500


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HOST, {"cpu": {"shares": 2, "quota": 5, "period": 9}, "memory": {"limit": 7, "swap": 7}, "pids": {"limit": 3}}),
        (replace(HOST, swap=False), {"cpu": {"shares": 2, "quota": 5, "period": 9}, "memory": {"limit": 7}, "pids": {"limit": 3}}),
        (replace(HOST, memory=False, cpu=False, pids=False), {}),
    ],
)
def test_limits_that_the_host_can_set(host: specs.Host, expected: dict[str, Any]) -> None:
    resources = Resources(cpu_shares=2, cpu_quota=5, cpu_period=9, memory_limit=7, pids_limit=3)
    assert specs.plan_resources(resources, host) == expected


def test_host_namespaces() -> None:
    box = replace(BOX, net="", ipc="", uts="", shm=None, host_pid=True)
    body = plan(box)
    assert {body[name]["nsmode"] for name in ("netns", "ipcns", "utsns", "pidns", "cgroupns")} == {"host"}
    assert "/dev/shm" not in [mount["destination"] for mount in body["mounts"]]
    assert plan(replace(BOX, pid="/p/pid"))["pidns"] == {"nsmode": "path", "value": "/p/pid"}


def test_mounts_of_the_pod_come_first() -> None:
    wanted = [
        Mount("/v", "/data", read_only=True, propagation="rslave"),
        Mount("tmpfs", "/tmp", options=("size=1m",)),
        Mount("/h", "/etc/hostname"),
        Mount("/s", "/dev/shm/"),
    ]
    found = plan(mounts=wanted)["mounts"]
    assert found[0] == {"type": "bind", "source": "/v", "destination": "/data", "options": ["rbind", "ro", "rslave"]}
    assert found[1] == {"type": "tmpfs", "source": "tmpfs", "destination": "/tmp", "options": ["size=1m"]}
    assert len(found) == 4


def test_labels_come_back_as_info() -> None:
    body = plan(labels={"mine": "1"}, attempt=3)
    entry = {"Id": "c1", "Labels": body["labels"], "State": "exited", "Pid": 5, "ImageID": "abc", "Created": "2026-01-01T00:00:00.123456789Z",
             "StartedAt": 1767225600, "ExitedAt": 1767225601, "ExitCode": 4}  # fmt: skip
    found = infos.from_list(entry, None)
    assert (found.pod, found.name, found.attempt, found.hash, found.labels) == (POD, "main", 3, "h1", {"mine": "1"})
    assert (found.state, found.pid, found.exit_code, found.image_id) == ("exited", 0, 4, "sha256:abc")
    assert found.finished_at == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    oom = infos.from_list(entry, Ending(137, "2026-01-01T00:00:05+00:00", oom=True))
    assert (oom.exit_code, oom.oom_killed) == (137, True)


@pytest.mark.parametrize(
    ("state", "ours"), [("running", "running"), ("paused", "running"), ("created", "created"), ("stopped", "exited"), ("exited", "exited")]
)
def test_states(state: str, ours: str) -> None:
    assert infos.from_list({"Id": "c", "State": state}, None).state == ours


@pytest.mark.parametrize(
    ("text", "program", "expected"),
    [
        (
            "crun: executable file `x` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was "
            "not found",
            "x",
            'exec: "x": executable file not found in $PATH',
        ),
        ("crun: executable file `/x` not found in $PATH: No such file", "/x", 'exec: "/x": stat /x: no such file or directory'),
        ("crun: open executable: Permission denied: OCI permission denied", "/p", 'exec: "/p": permission denied'),
        (
            'runc: runc create failed: unable to start container process: exec: "x": executable file not found in $PATH: OCI runtime '
            "attempted to invoke a command that was not found",
            "x",
            'exec: "x": executable file not found in $PATH',
        ),
        ("crun: set memory limit: Device or resource busy", "x", "set memory limit: Device or resource busy"),
    ],
)
def test_start_messages(text: str, program: str, expected: str) -> None:
    assert infos.start_message(text, program) == expected


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("a/b", "docker.io/a/b:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("index.docker.io/library/busybox:1", "docker.io/library/busybox:1"),
        ("quay.io/a/b:2", "quay.io/a/b:2"),
        ("localhost/x", "localhost/x:latest"),
        ("host:5000/x", "host:5000/x:latest"),
        ("a/b@sha256:12", "docker.io/a/b@sha256:12"),
        ("a/b:tag@sha256:12", "docker.io/a/b@sha256:12"),
    ],
)
def test_expand(ref: str, name: str) -> None:
    assert expand(ref) == name


def test_the_fake_expands_alike() -> None:
    for ref in ("busybox", "a/b", "quay.io/a/b:2", "host:5000/x"):
        assert fake_expand(ref) == expand(ref)


@pytest.mark.parametrize(("milli", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (10**9, 262144)])
def test_shares(milli: int, shares: int) -> None:
    assert shares_of(milli) == shares


@pytest.mark.parametrize(("milli", "quota"), [(0, 0), (1, 1000), (500, 50_000), (2000, 200_000)])
def test_quota(milli: int, quota: int) -> None:
    assert quota_of(milli) == quota


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (10**9, 10_000)])
def test_weight(shares: int, weight: int) -> None:
    assert weight_of(shares) == weight


def test_weights_grow_with_shares() -> None:
    values = [weight_of(shares) for shares in range(2, 5000, 7)]
    assert values == sorted(values)


def test_pod_limits_hold_only_if_every_container_has_one() -> None:
    assert pod_limits(500, 1000, 99, every_cpu_limited=True, every_memory_limited=False) == Limits(shares=512, quota=100_000, memory=0)


def test_configuration_files(tmp_path: Path) -> None:
    import tomllib

    config = RuntimeConfig(data_dir=tmp_path / "d", run_dir=tmp_path / "r")
    parsed = tomllib.loads(containers_conf(config, runtime="crun", nofile=7, nproc=8))
    assert parsed["engine"]["cgroup_manager"] == "cgroupfs"
    assert parsed["engine"]["static_dir"] == str(tmp_path / "r/podman/static")
    assert tomllib.loads(registries_conf()) == {"unqualified-search-registries": [], "short-name-mode": "disabled"}
