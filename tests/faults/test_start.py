"""What keeps a server from starting: real processes, one clear line each, exit 1, and nothing made.

Each row breaks one thing of an installation whose folders do not exist yet (or hold only what the row put there) and compares the whole
tree before and after. The ports belong to a network namespace of the test.
"""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgekube.app import preflight
from edgekube.config import Settings
from edgekube.store.sqlite import open_store
from tests.kit import netns as ns
from tests.kit.cluster import cluster
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns")

PYTHON = (sys.executable, "-m", "edgekube")
# As PYTHON, but the port is taken by somebody else only after it was found to be free.
TOO_LATE = (
    sys.executable,
    "-c",
    "from edgekube.app import preflight as p; p.refusals = lambda settings, agent=False: []; from edgekube.__main__ import main; main()",
)


class Site:
    """Folders of an installation that is not there yet."""

    def __init__(self, base: Path, netns: str) -> None:
        self.base, self.netns = base, netns
        self.data, self.run, self.kubeconfig = base / "data", base / "run", base / "etc" / "kubeconfig.yaml"

    @property
    def database(self) -> Path:
        return self.data / "db" / "state.db"

    def tree(self) -> dict[str, bytes | None]:
        found = sorted(self.base.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in found}

    def server(self, *flags: str, program=PYTHON, prefix=(), env=None, **changed: Path) -> subprocess.CompletedProcess:
        places = {"data-dir": self.data, "run-dir": self.run, "write-kubeconfig": self.kubeconfig}
        places |= {name.replace("_", "-"): path for name, path in changed.items()}
        own = [f"--{name}={path}" for name, path in places.items()]
        argv = [*ns.enter_command(self.netns), *prefix, *program, "server", *own, "--node-name=node-1", *flags]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=os.environ | dict(env or {}))

    def refuses(self, *flags: str, **options) -> str:
        """The one line that a start says which must fail and change nothing."""
        before = self.tree()
        done = self.server(*flags, **options)
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("edgekube: ")
        assert "Traceback" not in line
        assert self.tree() == before
        return line.removeprefix("edgekube: ")


@pytest.fixture(scope="module")
def netns():
    with ns.namespace() as path:
        yield path


@pytest.fixture
def site(tmp_path, netns):
    return Site(tmp_path, netns)


@contextlib.contextmanager
def taken(netns: str, port: int):
    listener = ns.call_inside(netns, lambda: socket.create_server(("0.0.0.0", port)))
    try:
        yield
    finally:
        listener.close()


@pytest.mark.parametrize(("flag", "what"), [("https-port", "the API"), ("kubelet-port", "the kubelet")])
def test_a_port_in_use(site, flag, what):
    with taken(site.netns, 7001):
        line = site.refuses(f"--{flag}=7001")
    assert line == f"port 7001 for {what} can not be used: address already in use: see who has it with: ss -ltnp 'sport = :7001'"


def test_a_port_taken_at_the_last_moment(site):
    with taken(site.netns, 7002):
        done = site.server("--https-port=7002", program=TOO_LATE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("edgekube: "))
    assert "7002" in line
    assert "address already in use" in line


def test_an_address_that_is_not_ours(site):
    assert "port 6443 for the API can not be used: cannot assign requested address" in site.refuses("--bind-address=192.0.2.1")


@pytest.mark.parametrize("which", ["data_dir", "run_dir"])
def test_a_file_in_place_of_a_folder(site, which):
    taken_by = site.base / "file"
    taken_by.write_text("mine")
    line = site.refuses(**{which: taken_by})
    assert line == f"{taken_by} can not be made: File exists"
    line = site.refuses(**{which: taken_by / "below"})
    assert line == f"{taken_by / 'below'} can not be made: Not a directory"


@pytest.fixture
def disk(tmp_path):
    """A small tmpfs; call it to mount it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    remount.folder = folder
    yield remount
    subprocess.run(["umount", "-R", str(folder)], check=True)


def test_a_data_dir_that_can_not_be_written(site, disk):
    disk("ro,size=200m")
    assert site.refuses(data_dir=disk.folder / "data") == f"{disk.folder / 'data'} can not be made: Read-only file system"
    disk("rw,size=200m")
    (disk.folder / "data").mkdir()
    disk("ro,size=200m")
    line = site.refuses(data_dir=disk.folder / "data")
    assert line == f"{disk.folder / 'data' / 'db'} can not be made: Read-only file system"


def test_a_kubeconfig_that_can_not_be_written(site):
    (site.base / "etc").write_text("a file")
    done = site.server()
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("edgekube: "))
    assert str(site.kubeconfig.parent) in line
    assert "Traceback" not in done.stderr


def test_a_full_disk(site, disk):
    line = site.refuses(data_dir=disk.folder / "data")
    assert line == f"1 MiB free for {disk.folder / 'data'}: at least 64 MiB are needed to start"


@pytest.mark.parametrize(("agent", "mark"), [(False, "db/state.db"), (True, "agent/node.json")])
def test_a_disk_that_filled_up_stops_no_second_start(disk, agent, mark):
    settings = Settings(data_dir=disk.folder / "data", https_port=0, kubelet_port=0)
    assert preflight.refusals(settings, agent=agent)
    (settings.data_dir / mark).parent.mkdir(parents=True)
    (settings.data_dir / mark).touch()
    assert preflight.refusals(settings, agent=agent) == []
    (found,) = (one for one in preflight.examine(settings, agent=agent) if one.check == "disk")
    assert not found.ok
    assert "make room" in found.fix


async def test_a_newer_database(site):
    site.database.parent.mkdir(parents=True)
    store = await open_store(site.database)
    await store.close()
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    line = site.refuses()
    assert str(site.database) in line
    assert "newer edgekube" in line


def test_a_foreign_database(site):
    site.database.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        connection.execute("CREATE TABLE mine(x)")
    line = site.refuses()
    assert str(site.database) in line
    assert "not a database of edgekube" in line
    site.database.write_bytes(b"hello, this is no database at all")
    assert site.refuses() == f"{site.database} is not a database; it was left as it is"


async def test_a_database_of_which_nothing_can_be_read(site):
    site.database.parent.mkdir(parents=True)
    store = await open_store(site.database)
    await store.create("pods/x", lambda revision: (b"x" * 9000, None))
    await store.close()
    data = site.database.read_bytes()
    site.database.write_bytes(data[:100] + os.urandom(len(data) - 100))
    done = site.server()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == f"edgekube: {site.database} is damaged and no row of it can be read; it was kept as {site.database}.damaged-1"
    assert not site.kubeconfig.exists()
    assert not (site.data / "pki").exists()


# The system's folders are always looked at, so the programs are hidden from the process by a mount namespace of its own.
HIDE = 'for f in "$@"; do shift; [ "$f" = -- ] && break; if [ -e "$f" ]; then mount --bind /dev/null "$f"; fi; done; exec "$@"'


@pytest.mark.parametrize(
    ("hidden", "line"),
    [
        (("nft",), "nft was not found: install the package nftables"),
        (("podman",), "podman was not found: install the package podman"),
        (("conmon",), "conmon was not found: install the package conmon"),
        (("crun", "runc"), "neither crun nor runc was found: install the package crun"),
        (("podman", "nft"), "podman was not found: install the package podman; nft was not found: install the package nftables"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_a_missing_program(site, hidden, line):
    places = [f"{folder}/{name}" for name in hidden for folder in ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")]
    prefix = ("unshare", "-m", "sh", "-c", HIDE, "hide", *places, "--")
    assert site.refuses(prefix=prefix, env={"PATH": "/usr/bin:/bin"}) == line


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def test_no_root(site):
    os.chmod(site.base, 0o755)
    if subprocess.run([*NOBODY, sys.executable, "-c", "import edgekube"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED HERE: this checkout can not be read by others")
    assert site.refuses(prefix=NOBODY) == "a node makes namespaces, links and rules, which needs root: run it with sudo"
    secret = site.base / "secret"
    secret.mkdir(mode=0o700)
    line = site.refuses(prefix=NOBODY, data_dir=secret / "data", run_dir=secret / "run")
    assert line.startswith("a node makes namespaces, links and rules, which needs root: run it with sudo")


def test_looking_and_stopping_without_root_beside_a_server_of_root(site):
    os.chmod(site.base, 0o755)
    if subprocess.run([*NOBODY, sys.executable, "-c", "import edgekube"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED HERE: this checkout can not be read by others")
    secret = site.base / "secret"
    (secret / "run").mkdir(parents=True)
    (secret / "run" / "edgekube.pid").write_text("1\n")
    secret.chmod(0o700)
    places = (f"--data-dir={secret}/data", f"--run-dir={secret}/run")
    checked, stopped = (
        subprocess.run([*NOBODY, sys.executable, "-m", "edgekube", command, *places], capture_output=True, text=True, check=False)
        for command in ("check", "stop")
    )
    assert "Traceback" not in checked.stderr, checked.stderr
    assert checked.returncode == 1
    assert checked.stdout.startswith("  FAIL  a node makes namespaces, links and rules, which needs root\n        fix: run it with sudo\n")
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (1, "", f"edgekube: {secret}/run is for root only: try sudo\n")


def test_labels_that_a_node_may_not_give_itself(site):
    line = site.refuses("--node-labels=node-role.kubernetes.io/edge=true,zone=a")
    assert line.startswith("--node-labels: a node may not give itself node-role.kubernetes.io/edge: set it once the node is there: ")


def test_wrong_usage(site):
    before = site.tree()
    done = site.server("--no-such-flag=1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("error: unrecognized arguments: --no-such-flag=1")
    assert site.tree() == before


@pytest.mark.parametrize(
    ("flag", "value"),
    [("https-port", "x"), ("https-port", "99999"), ("cluster-cidr", "10.42"), ("node-name", "not_a_name"), ("log-level", "loud")],
)
def test_a_wrong_setting(site, flag, value):
    line = site.refuses(f"--{flag}={value}")
    assert flag in line
    assert value in line


def test_a_second_server_on_the_same_folders():
    with cluster() as first:
        site = Site(first.base / "second", first.netns)
        site.base.mkdir()
        line = site.refuses("--https-port=7443", "--kubelet-port=7250", data_dir=first.data, run_dir=first.run_dir)
        assert line == f"another edgekube uses {first.run_dir}: already running as process {first.process.pid}"
        line = site.refuses("--https-port=7443", "--kubelet-port=7250", run_dir=first.run_dir)
        assert line == f"another edgekube uses {first.run_dir}: already running as process {first.process.pid}"
        done = site.server("--https-port=7443", "--kubelet-port=7250", data_dir=first.data)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [f"edgekube: {first.data / 'db' / 'state.db'} is in use by another process"]
        assert first.kubectl("get", "--raw", "/readyz") == "ok"
