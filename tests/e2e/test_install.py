"""packaging/install.sh in a room of this machine that looks untouched: what it leaves, what a second run does, and every refusal.

The program is a script that runs this checkout: what a frozen one adds is tested with it (tests/vm).
"""

import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.hostroom import room
from tests.kit.requires import needs

ROOT = Path(__file__).parents[2]
INSTALL = str(ROOT / "packaging" / "install.sh")
pytestmark = needs("root", "podman", "netns", "nft")


@pytest.fixture
def here():
    with room() as found:
        yield found


def program(folder, version=""):
    path = folder / "edgekube"
    told = f'[ "$1" != version ] || {{ echo "edgekube {version}"; exit; }}\n' if version else ""
    path.write_text(f'#!/bin/sh\n{told}PYTHONPATH={ROOT} exec {sys.executable} -m edgekube "$@"\n')
    path.chmod(0o755)
    return str(path)


def refused(here, *arguments, env=None):
    """Why; and nothing is left behind."""
    before = here.files()
    done = here.run(INSTALL, *arguments, env=env)
    assert done.returncode == 1, done.stdout + done.stderr
    assert here.files() == before
    assert done.stderr.startswith("edgekube: "), done.stderr
    return done.stderr


def test_installed_twice_and_taken_away_the_machine_is_as_it_was(here, tmp_path):
    before, binary = here.files(), program(tmp_path)
    done = here.run(INSTALL, "--binary", binary, "--https-port=7443", "--node-labels", "a=b")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the cluster is ready" in done.stdout
    assert not [line for line in done.stderr.splitlines() if line.startswith("  ok")], done.stderr  # only what is to be done
    first = here.sh("edgekube status --node | head -1")
    assert here.sh("cat /etc/edgekube/config.yaml") == 'https-port: 7443\nnode-labels: ["a=b"]\n'
    here.sh("echo '# mine' >> /etc/edgekube/config.yaml")
    files = here.files()
    done = here.run("sh", "-c", f"cat {INSTALL} | sh -s - --binary {binary} --max-pods 7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert here.sh("cat /etc/edgekube/config.yaml").splitlines() == ['https-port: 7443', 'node-labels: ["a=b"]', "# mine", 'max-pods: 7']
    assert here.sh("edgekube status --node | head -1") != first
    assert [name for name in here.files() if name.startswith(("/etc", "/usr"))] == [name for name in files if name.startswith(("/etc", "/usr"))]
    Path(binary).write_text(Path(binary).read_text() + "# newer\n")
    done = here.run(INSTALL, "--binary", binary)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is ready; 0." in done.stdout, "it was on trial"
    assert here.sh("tail -n 1 /usr/local/bin/edgekube") == "# newer\n"
    Path(binary).write_text(Path(binary).read_text().replace("exec", '[ "$1" != server ] || exit 1\nexec'))
    done = here.run(INSTALL, "--binary", binary)
    assert done.returncode == 1
    assert "is in use as before" in done.stderr
    here.sh("edgekube status --wait 60 --node --quiet")
    assert "exit 1" not in here.sh("cat /usr/local/bin/edgekube")
    here.sh("edgekube uninstall --yes")
    assert here.files() == before
    assert here.sh("nft list ruleset; ip -o link; cat /proc/sys/net/ipv4/ip_forward").split()[-1] == "0"


def test_variables_as_k3s_users_know_them(here, tmp_path):
    env = {"INSTALL_EDGEKUBE_BINARY": program(tmp_path), "INSTALL_EDGEKUBE_EXEC": "--node-name=pi", "INSTALL_EDGEKUBE_SKIP_START": "true",
           "INSTALL_EDGEKUBE_DATA_DIR": "/run/systemd/data/ek", "EDGEKUBE_URL": "https://10.0.0.1:6443", "EDGEKUBE_TOKEN": "EK1abc::id.secret",
           "EDGEKUBE_KUBELET_PORT": "10999"}  # fmt: skip
    before = here.files()
    done = here.run(INSTALL, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    text = here.sh("cat /etc/edgekube/config.yaml")
    for line in ('server: ["https://10.0.0.1:6443"]', 'node-name: "pi"', 'data-dir: "/run/systemd/data/ek"', 'kubelet-port: 10999'):
        assert line in text
    assert here.sh("grep -rl EK1abc /etc /run/systemd/data /usr/local/bin /var/log/edgekube.log 2>/dev/null || true").split() == ["/etc/edgekube/join-token"]
    assert stat.S_IMODE(int(here.sh("stat -c %a /etc/edgekube/join-token"), 8)) == 0o600
    assert stat.S_IMODE(int(here.sh("stat -c %a /run/systemd/data/ek"), 8)) == 0o700
    here.sh("edgekube uninstall --yes")
    assert here.files() == before


def test_an_uninstall_killed_anywhere_completes_wherever_the_data_is(here, tmp_path):
    before = here.files()
    binary = program(tmp_path)
    flags = ["--data-dir=/run/systemd/other/ek", "--binary", binary]
    done = here.run(INSTALL, *flags, env={"INSTALL_EDGEKUBE_SKIP_START": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    for step in range(1, 60):
        if here.run(binary, "uninstall", "--yes", env={"EDGEKUBE_FAILPOINTS": f"uninstall=kill:{step}"}).returncode == 0:
            break
    assert step > 8
    assert set(here.files()) - set(before) <= {"/run/systemd/other"}, "at worst an empty folder above the data directory"
    assert set(before) <= set(here.files())


def test_what_was_there_before_comes_back_and_what_came_since_stays(here, tmp_path):
    here.sh("mkdir -p /etc/edgekube; echo 'max-pods: 9 # mine' > /etc/edgekube/config.yaml; echo theirs > /etc/edgekube/kubeconfig.yaml")
    before = here.files()
    done = here.run(INSTALL, "--binary", program(tmp_path), "--node-name=pi")
    assert done.returncode == 0, done.stdout + done.stderr
    assert here.sh("cat /etc/edgekube/config.yaml") == 'max-pods: 9 # mine\nnode-name: "pi"\n'
    here.sh("echo > /etc/edgekube/notes")
    here.sh("edgekube uninstall --yes")
    assert [name for name in here.files() if name not in before] == ["/etc/edgekube/notes"]
    assert here.sh("cat /etc/edgekube/config.yaml /etc/edgekube/kubeconfig.yaml") == "max-pods: 9 # mine\ntheirs\n"


def test_offline_images_go_where_they_are_loaded_from(here, tmp_path):
    program(tmp_path)
    (tmp_path / "app.tar").write_text("layers")
    done = here.run(INSTALL, "--offline", str(tmp_path), env={"INSTALL_EDGEKUBE_SKIP_START": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert here.sh("cat /var/lib/edgekube/images/app.tar") == "layers"


def package(folder, name, files=(), **control):
    """A package of two lines."""
    root = folder / f"{name}.d"
    (root / "DEBIAN").mkdir(parents=True)
    fields = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "x <x@x>", "Description": "x"} | control
    (root / "DEBIAN" / "control").write_text("".join(f"{key.replace('_', '-')}: {value}\n" for key, value in fields.items()))
    for file in files:
        path = root / file.lstrip("/")
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\necho podman version 5.0.0\n")
        path.chmod(0o755)
    subprocess.run(["dpkg-deb", "-b", str(root), str(folder / f"{name}_1_all.deb")], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="NOT TESTED HERE: needs dpkg")
def test_offline_packages_are_installed_in_the_order_they_need(tmp_path):
    program(tmp_path)
    for number, name in enumerate(("ekt-a-podman", "ekt-b-needed", "ekt-c-first")):
        need = [{"Depends": "ekt-b-needed"}, {"Pre_Depends": "ekt-c-first"}, {}][number]
        package(tmp_path, name, ["/usr/local/bin/podman"] if number == 0 else [], **need)
    with room("/var/lib/dpkg") as here:
        here.sh("touch /usr/local/none; mount --bind /usr/local/none /usr/bin/podman")
        env = {"INSTALL_EDGEKUBE_SKIP_START": "1"}
        done = here.run(INSTALL, "--offline", str(tmp_path), env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert here.sh("dpkg-query -W -f '${Status}\n' ekt-a-podman ekt-b-needed ekt-c-first").splitlines() == ["install ok installed"] * 3
        again = here.run(INSTALL, "--offline", str(tmp_path), env=env)
        assert again.returncode == 0, again.stderr
        assert "installing" not in again.stdout
        here.sh("rm /usr/local/bin/podman")
        done = here.run(INSTALL, "--offline", str(tmp_path), env=env)
        assert done.returncode == 1
        assert "there are no packages in" in done.stderr


def test_killed_at_any_step_it_completes_when_run_again(here, tmp_path):
    """The program kills the installer that calls it, each time one call later."""
    before, steps = here.files(), 0
    real = program(tmp_path)
    killer = tmp_path / "killer"
    env = {"INSTALL_EDGEKUBE_SKIP_START": "1", "INSTALL_EDGEKUBE_BINARY": str(killer)}
    for steps in range(1, 40):
        (tmp_path / "count").write_text("0")
        killer.write_text(f"""#!/bin/sh
            read -r n < {tmp_path}/count; n=$((n + 1)); echo $n > {tmp_path}/count
            [ $n != {steps} ] || {{ kill -9 $PPID; exit 1; }}
            exec {real} "$@"
            """)
        done = here.run(INSTALL, "--node-name=pi", env=env)
        if int((tmp_path / "count").read_text()) < steps:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps > 5
    assert here.sh("cat /etc/edgekube/config.yaml") == 'node-name: "pi"\n'
    done = here.run(INSTALL, "--binary", real, env={"INSTALL_EDGEKUBE_SKIP_START": "1"})
    assert done.returncode == 0
    here.sh("edgekube uninstall --yes")
    assert here.files() == before


def test_missing_packages_are_installed_and_told_at_the_end(here, tmp_path):
    here.sh("touch /usr/local/none; mount --bind /usr/local/none /usr/bin/podman")
    manager = "#!/bin/sh\\necho \"$*\" >> /usr/local/asked\\ncase \"$*\" in *podman*) umount /usr/bin/podman ;; esac"
    here.sh(f"printf '{manager}' > /usr/local/bin/apt-get; chmod +x /usr/local/bin/apt-get")
    done = here.run(INSTALL, "--binary", program(tmp_path), env={"INSTALL_EDGEKUBE_SKIP_START": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    asked = here.sh("cat /usr/local/asked").splitlines()
    assert len(asked) == 1
    assert asked[0].endswith(" podman")
    assert "-y" in asked[0]
    assert "left: package podman" in here.sh("edgekube uninstall --yes")


def elf(path, machine):
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(100))
    return str(path)


def test_bad_programs_are_refused_and_change_nothing(here, tmp_path):
    mine = {"x86_64": 0x3E, "aarch64": 0xB7}[os.uname().machine]
    other = 0xB7 if mine == 0x3E else 0x3E
    assert "another kind of machine" in refused(here, "--binary", elf(tmp_path / "other", other))
    line = refused(here, "--binary", elf(tmp_path / "broken", mine))
    assert line.endswith(f"does not run on this machine: {tmp_path}/broken is damaged: copy it again. Nothing was changed\n")
    (tmp_path / "text").write_text("<html>404</html>")
    assert "damaged" in refused(here, "--binary", str(tmp_path / "text"))
    assert "does not exist" in refused(here, "--binary", str(tmp_path / "nowhere"))
    binary = program(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  edgekube\n")
    assert "is damaged: its SHA-256 is" in refused(here, "--binary", binary)
    (tmp_path / "SHA256SUMS").unlink()
    assert "no program edgekube-VERSION-linux-" in refused(here, "--offline", "/usr/share")


def test_why_the_program_does_not_run_is_told(here, tmp_path):
    path = tmp_path / "edgekube"
    path.write_text("#!/bin/sh\necho 'edgekube: this machine has glibc 2.31' >&2\nexit 1\n")
    assert "does not run on this machine: this machine has glibc 2.31. Nothing was changed" in refused(here, "--binary", str(path))
    path.write_text("#!/bin/sh\nexit 1\n")
    assert f"it ends without a word: is {path} edgekube? Nothing was changed" in refused(here, "--binary", str(path))


def test_wrong_flags_and_a_full_disk_are_refused(here, tmp_path):
    binary = program(tmp_path)
    assert refused(here, "--binary", binary, "--no-such=1") == "edgekube: unrecognized arguments: --no-such=1\n"
    assert "--cluster-cidr" in refused(here, "--binary", binary, "--cluster-cidr=x")
    here.sh("mount -t tmpfs -o size=20m small /var/lib/edgekube")
    assert "MiB are free" in refused(here, "--binary", binary)


def test_a_downgrade_must_be_meant(here, tmp_path):
    env = {"INSTALL_EDGEKUBE_SKIP_START": "1"}
    assert here.run(INSTALL, "--binary", program(tmp_path, "0.10.0"), env=env).returncode == 0
    older = program(tmp_path, "0.9.1")
    assert "edgekube 0.10.0 is installed, and 0.9.1 is older" in refused(here, "--binary", older, env=env)
    assert here.run(INSTALL, "--binary", older, "--allow-downgrade", env=env).returncode == 0
    assert here.sh("edgekube version") == "edgekube 0.9.1\n"


def test_it_needs_root(tmp_path):
    with room() as here:
        done = here.run("setpriv", "--reuid=65534", "--clear-groups", "sh", INSTALL)
        assert done.returncode == 1
        assert "needs root" in done.stderr
