"""The built binary itself: whole, a working server, and children that see nothing of how it is packed."""

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import edgekube
from edgekube.cli.inventory import survey
from tests.e2e.manifests import pod
from tests.kit.binary import binary
from tests.kit.cluster import cluster, wait_until
from tests.kit.images import archive
from tests.kit.launchers import start
from tests.kit.requires import needs

pytestmark = needs("build", "root")

SMALLEST, LARGEST = 8e6, 21e6  # bytes; the released one is a quarter smaller than the quick one of the tests


@pytest.fixture(scope="module")
def program():
    return binary()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def run(program, data, *arguments):
    return start([program, *arguments, f"--data-dir={data}"])


def test_its_size(program):
    assert SMALLEST < program.stat().st_size < LARGEST


def test_everything_the_source_has_is_inside(program, data):
    done = run(program, data, "check", "--self")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    built = json.loads((data / "data/current/lib/edgekube/inventory.json").read_text())
    source = survey(("edgekube.client.faulty", "edgekube.store.memory"))
    if "EDGEKUBE_BINARY" not in os.environ:
        assert built == source
    assert built["registries"].keys() == source["registries"].keys()


def flip(path):
    """One bit in the middle, which no size shows."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_missing_is_named(program, data, tmp_path):
    assert run(program, tmp_path, "version").returncode == 0
    folder = tmp_path / "data" / "current"
    flip(next(folder.glob("lib/yaml/_yaml*.so")))
    flip(folder / "lib/edgekube/api/schema_data/types.json.gz")
    done = run(program, tmp_path, "check", "--self")
    assert done.returncode == 1
    assert "data file api/schema_data/types.json.gz is not the one of the source" in done.stdout
    assert "is unpacked anew at the next start" in done.stdout


def test_only_what_is_used_is_inside(program, data):
    run(program, data, "version")
    folder = data / "data" / "current"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    unwanted = re.compile(r"(^|/)(tests?|.*nftables.*|.*stdc\+\+.*|kubernetes|mypy|pytest|hypothesis|.*dist-info)(/|$)")
    assert [name for name in names if unwanted.search(name)] == []
    frozen = (folder / "edgekube").read_bytes()
    assert b"edgekube.client.reflector" in frozen, "names of modules are not where they are looked for"
    for module in (b"edgekube.client.faulty", b"edgekube.store.memory", b"hypothesis", b"_pytest"):
        assert module not in frozen
    assert str(Path(edgekube.__file__).parent.parent).encode() not in frozen, "the folder it was built in shows"


def test_version_and_exit_codes(program, data):
    assert run(program, data, "version").stdout.startswith(f"edgekube {edgekube.__version__} ")
    assert run(program, data, "no-such-command").returncode == 2
    assert run(program, data, "status").returncode == 1


def test_a_user_may_ask_it(program):
    if subprocess.run(["setpriv", "--reuid=4711", "test", "-x", str(program)], check=False).returncode:
        prepare = f"mount -t tmpfs tmpfs /opt\ncp {program} /opt/edgekube\n"
    else:
        prepare = f"mount -t tmpfs tmpfs /opt\nln -s {program} /opt/edgekube\n"
    prepare += 'for folder in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done\ncd /\nexec "$@"'
    done = start(["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "/opt/edgekube", "version"], shell=prepare)
    assert done.stdout.startswith("edgekube "), done.stderr


@pytest.fixture
def spies(tmp_path):
    """Programs of the host that tell with which environment they were started, then do what they are for."""
    folder, log = tmp_path / "bin", tmp_path / "spies.log"
    folder.mkdir()
    for name in ("podman", "crun", "runc", "nft", "systemctl", "conmon", "sh", "ldconfig", "ip", "iptables"):
        path = folder / name
        path.write_text(
            f'#!/bin/bash\n(echo "== {name} $$"; tr "\\0" "\\n" </proc/$$/environ) >>{log}\nPATH=${{PATH#{folder}:}}\nexec {name} "$@"\n'
        )
        path.chmod(0o755)
    return folder, log


PACKAGE = re.compile(r"LD_LIBRARY_PATH|_PYI|_MEI|_EDGEKUBE_|OPENSSL_MODULES")


def leaks(text):
    """Variables of the package. `PACKAGE` must find some in the launcher's own child, or it finds nothing anywhere."""
    return [line for line in text.splitlines() if PACKAGE.match(line)]


def children_of(pid):
    """All that descends from it, and what left it: found by the folder in its command line or environment."""
    found, waiting = [], [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            waiting.extend(each for each in map(int, task.read_text().split()) if each not in found)
        found.extend(waiting)
    return sorted(set(found))


@pytest.mark.timeout(300)
def test_children_see_nothing_of_the_package(program, spies, tmp_path_factory):
    missing = needs("podman", "netns")
    if missing.args[0]:
        pytest.skip(missing.kwargs["reason"])
    folder, log = spies
    image = archive(tmp_path_factory.mktemp("image") / "busybox.tar")
    with cluster(start=False, program=(str(program),)) as found:
        found.start(env={"PATH": f"{folder}:{os.environ['PATH']}"})
        own = Path(f"/proc/{found.process.pid}/environ").read_text().replace("\0", "\n")
        assert leaks(own), "the server itself has them at its start: what is looked for is no longer what there is"
        found.edgekube("images", "import", str(image))
        found.apply(pod("web", "sleep 600"))
        found.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
        assert found.kubectl("exec", "web", "--", "echo", "hello").strip() == "hello"
        processes = wait_until(lambda: children_of(found.process.pid), what="children")
        base = str(found.base)
        processes += [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if base in command(pid) and pid != found.process.pid
        ]
        assert processes
        for pid in processes:
            assert leaks(environment(pid)) == [], command(pid)
            assert f"{found.data}/data/" not in maps(pid), command(pid)
            assert not [name for name in open_files(pid) if name.startswith(f"{found.data}/data/")], command(pid)
        assert "== podman" in log.read_text()
        assert leaks(log.read_text()) == []
        assert f"removed: {found.data}" in found.uninstall(), "it removes the folder that it runs from, last"
        assert not found.data.exists()


def command(pid):
    return read(pid, "cmdline")


def environment(pid):
    return read(pid, "environ").replace("\0", "\n")


def maps(pid):
    return read(pid, "maps")


def open_files(pid):
    found = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(entry.readlink()))
    return found


def read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""
