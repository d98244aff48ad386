"""Where the launcher unpacks: the data directory as edgekube finds it, else what this user has; full, read-only and noexec file systems.

Mounts are made in namespaces of their own. Temporary folders of the machine are covered there by empty ones.
"""

import os
import tempfile
from pathlib import Path

import pytest

from tests.kit.launchers import small_binary, start, versions
from tests.kit.requires import needs

pytestmark = [needs("build", "root")]

# Nothing of these tests reaches the machine's own folders.
EMPTY = "for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 tmpfs $folder; done\n"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)  # another user starts it
    return small_binary(folder)


@pytest.fixture
def place(small):
    """An empty folder that is there in every namespace: not below /tmp."""

    with tempfile.TemporaryDirectory(dir="/root" if os.path.isdir("/root") else "/var") as folder:
        program = os.path.join(folder, "edgekube")
        with open(program, "wb") as out:
            out.write(small.read_bytes())
        os.chmod(program, 0o755)
        yield folder


def where(done):
    """The folder it was unpacked to."""
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().partition("exe=")[2].rpartition("/")[0].rpartition("/")[0]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["server", "--data-dir=PLACE/d"], {}),
        (["server", "--data-dir", "PLACE/d"], {}),
        (["server", "--data-dir=/nowhere", "--data-dir=PLACE/d"], {}),
        (["version"], {"EDGEKUBE_DATA_DIR": "PLACE/d"}),
        (["version"], {"EDGEKUBE_CONFIG": "PLACE/config.yaml"}),
        (["version", "--config=PLACE/config.yaml"], {"EDGEKUBE_CONFIG": "/nowhere"}),
        (["server", "--data-dir=PLACE/d"], {"EDGEKUBE_DATA_DIR": "/nowhere", "EDGEKUBE_CONFIG": "PLACE/config.yaml"}),
    ],
)
def test_the_data_directory_is_the_one_edgekube_uses(place, arguments, variables):
    with open(f"{place}/config.yaml", "w") as file:
        file.write(f"node-name: pi\ndata-dir: '{place}/d'  # a disk\n")
    argv = [f"{place}/edgekube", *(word.replace("PLACE", place) for word in arguments)]
    done = start(argv, env={name: value.replace("PLACE", place) for name, value in variables.items()})
    assert where(done) == f"{place}/d/data"


def test_what_kubectl_is_given_is_not_ours(place):
    done = start([f"{place}/edgekube", "kubectl", "--data-dir=/nowhere"], env={"EDGEKUBE_DATA_DIR": f"{place}/d"})
    assert where(done) == f"{place}/d/data"


def test_relative_folders_work(place):
    done = start(["sh", "-c", 'cd "$1" && exec ./edgekube version --data-dir=d', "sh", place])
    assert where(done) == f"{place}/d/data"


def as_user(uid, *argv):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]


def test_a_user_without_rights_uses_the_own_cache(small, tmp_path):
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    os.chown(home, 4711, 4711)
    data.mkdir(0o700)
    command = as_user(4711, small, "version", f"--data-dir={data}")
    assert where(start(command, env={"HOME": str(home)})) == f"{home}/.cache/edgekube"
    assert where(start(command, env={"HOME": str(home), "XDG_CACHE_HOME": f"{home}/c"})) == f"{home}/c/edgekube"


def test_a_user_without_a_home_uses_temporary_folders(small):
    command = as_user(4711, "sh", "-c", 'exec "$0" version', "/opt/edgekube")
    prepare = f'mount -t tmpfs tmpfs /opt\ncp {small} /opt/edgekube\n{EMPTY}exec "$@"'
    assert where(start(command, shell=prepare)) == "/var/tmp/edgekube-4711"


def test_a_folder_that_somebody_else_made_is_not_used(small):
    command = as_user(4711, "sh", "-c", 'exec "$0" version', "/opt/edgekube")
    trap = "mkdir -m 777 /var/tmp/edgekube-4711; ln -s /var /tmp/edgekube-4711; mkdir /dev/shm/edgekube-4711; chown 4712 /dev/shm/edgekube-4711\n"
    done = start(command, shell=f'mount -t tmpfs tmpfs /opt\ncp {small} /opt/edgekube\n{EMPTY}{trap}exec "$@"')
    assert done.returncode == 1
    assert done.stderr.count("it belongs to another user, or others may write there") == 2, done.stderr


def test_root_takes_no_folder_from_the_environment(place):
    prepare = f'{EMPTY}mkdir /tmp/ro\nmount -t tmpfs -o ro tmpfs /tmp/ro\nexec "$@"'
    command = [f"{place}/edgekube", "version", "--data-dir=/tmp/ro/data"]
    assert where(start(command, env={"HOME": f"{place}/home", "XDG_CACHE_HOME": f"{place}/cache"}, shell=prepare)) == "/var/tmp/edgekube-0"


def test_a_data_directory_that_nothing_runs_from(place):
    prepare = f'{EMPTY}mkdir -p {place}/d\nmount -t tmpfs -o noexec tmpfs {place}/d\nexec "$@"'
    assert where(start([f"{place}/edgekube", "server", f"--data-dir={place}/d"], shell=prepare)) == "/var/tmp/edgekube-0"


def test_temporary_folders_that_nothing_runs_from_are_passed_over(place):
    noexec = "mount -o remount,noexec /tmp\nmount -o remount,noexec /var/tmp\n"
    prepare = f'{EMPTY}{noexec}exec "$@"'
    assert where(start([f"{place}/edgekube", "version", "--data-dir=/proc/none"], shell=prepare)) == "/dev/shm/edgekube-0"
    assert where(start([f"{place}/edgekube", "server", f"--data-dir={place}/d"], shell=prepare)) == f"{place}/d/data"


READ_ONLY = """
mount --bind / /mnt
mount -o remount,bind,ro /mnt
mount -t proc proc /mnt/proc
mount -t tmpfs -o mode=1777 tmpfs /mnt/dev
mkdir -m 1777 /mnt/dev/shm
mount -t tmpfs -o mode=1777 tmpfs /mnt/dev/shm
"""


def test_a_read_only_root(place):
    done = start([f"{place}/edgekube", "version"], shell=READ_ONLY + 'exec chroot /mnt "$@"')
    assert where(done) == "/dev/shm/edgekube-0"


def test_a_read_only_root_with_a_data_disk(place):
    mounted = READ_ONLY + 'mount -t tmpfs tmpfs /mnt/srv\nexec chroot /mnt "$@"'
    done = start([f"{place}/edgekube", "server", "--data-dir=/srv/edgekube"], shell=mounted)
    assert where(done) == "/srv/edgekube/data"


def test_a_full_disk_is_told_a_server_and_nothing_stays(place):
    full = f"{EMPTY}mkdir -p {place}/d\nmount -t tmpfs -o size=100k tmpfs {place}/d\n"
    command = [f"{place}/edgekube", "server", f"--data-dir={place}/d"]
    done = start(command, shell=full + f'"$@" || ls -A {place}/d/data')
    assert f"edgekube: it can not unpack itself: {place}/d/data: 0 MB are free, 4 are needed\n" == done.stderr
    assert done.stdout == ".lock\n"
    assert where(start([f"{place}/edgekube", "version", f"--data-dir={place}/d"], shell=f'{full}exec "$@"')) == "/var/tmp/edgekube-0"


def test_a_disk_that_fills_up_meanwhile(place):
    """The room was there when it was looked for: every write may fail."""
    trace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=ENOSPC:when=2"]
    done = start([*trace, f"{place}/edgekube", "server", f"--data-dir={place}/d"])
    assert done.returncode == 1
    assert done.stderr == f"edgekube: it can not unpack itself: {place}/d/data: No space left on device\n"
    assert os.listdir(f"{place}/d/data") == [".lock"]
    assert where(start([f"{place}/edgekube", "server", f"--data-dir={place}/d"])) == f"{place}/d/data"
    assert len(versions(Path(place) / "d/data")) == 1
