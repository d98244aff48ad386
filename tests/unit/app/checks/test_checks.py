"""What is said of hosts that nobody has at hand: old programs, odd disks, slow cards, wrong clocks, kernels with gaps."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgekube.app.checks import clock, disk, kernel, machine, programs
from edgekube.app.checks.finding import Finding, Remedy, ask
from edgekube.app.checks.run import apply_remedies
from edgekube.config import Settings
from edgekube.lib.receipt import Receipt

GOOD = {"podman": "podman version 4.3.1", "conmon": "conmon version 2.1.6\ncommit: unknown", "nft": "nftables v1.0.6 (Lester Gooch #5)",
        "crun": "crun version 1.8.1\ncommit: f8a096be\nspec: 1.0.0", "runc": "runc version 1.1.5+ds1\nspec: 1.0.2-dev"}  # fmt: skip
DATA = Path("/var/lib/edgekube")


def bad(found):
    return [(one.check, one.fatal) for one in found if not one.ok]


def test_versions_that_work():
    assert bad(programs.judge(GOOD)) == []


@pytest.mark.parametrize(
    ("name", "text", "fatal"),
    [
        ("podman", "podman version 3.4.4", True),
        ("conmon", "conmon version 2.0.25", False),
        ("nft", "nftables v0.9.0 (Fearless Fosdick)", False),
        ("crun", "crun version 0.16", False),
        ("podman", "Segmentation fault", True),
        ("podman", "", True),
    ],
)
def test_versions_that_do_not(name, text, fatal):
    found = programs.judge(GOOD | {name: text})
    assert bad(found) == [(name, fatal)]
    assert found[0].fix


@pytest.mark.parametrize(
    ("text", "expected"), [("podman version 5.4.0-dev", (5, 4, 0)), ("v1.2", (1, 2)), ("commit a1.2b", None), ("2024", None)]
)
def test_versions_are_found_in_what_is_said(text, expected):
    assert programs.version_in(text) == expected


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw,nosuid,noexec shared:4 - tmpfs tmpfs rw
31 22 0:40 / /mnt/my\040disk rw - xfs /dev/sdb1 rw
32 22 0:41 / /srv ro - ext4 /dev/sdc1 rw
33 22 0:42 / /srv rw - nfs4 nas:/x rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "option"),
    [("/var/lib", "ext4", "rw"), ("/tmp/x", "tmpfs", "noexec"), ("/mnt/my disk/a", "xfs", "rw"), ("/srv/a", "nfs4", "rw"), ("/srvx", "ext4", "rw")],
)
def test_the_mount_below_a_folder(folder, kind, option):
    found, options, _device = disk.mount_of(Path(folder), MOUNTS)
    assert (found, option in options) == (kind, True)


@pytest.mark.parametrize(
    ("kind", "options", "frozen", "expected"),
    [
        ("ext4", ["rw"], True, []),
        ("overlay", ["rw"], True, [("file system", True)]),
        ("tmpfs", ["rw"], True, [("file system", False)]),
        ("nfs4", ["rw"], False, [("file system", True)]),
        ("vfat", ["rw"], False, [("file system", True)]),
        ("ext4", ["ro"], False, [("file system", True)]),
        ("ext4", ["rw", "noexec"], True, [("noexec", True)]),
        ("ext4", ["rw", "noexec"], False, [("noexec", False)]),
        ("tmpfs", ["rw", "noexec"], True, [("file system", False), ("noexec", True)]),
    ],
)
def test_disks_that_can_hold_a_cluster_and_others(kind, options, frozen, expected):
    assert bad(disk.judge_mount(DATA, kind, options, "/dev/sda1", frozen=frozen)) == expected


def test_room_and_speed():
    assert bad(disk.judge_room(DATA, 2 << 30, None)) == []
    assert bad(disk.judge_room(DATA, 100 << 20, 10)) == [("free space", False), ("inodes", False)]
    assert bad([disk.judge_speed(Settings(), 0.004)]) == []
    assert bad([disk.judge_speed(Settings(), 0.2)]) == [("disk speed", False)]


def test_measuring_leaves_nothing_behind(tmp_path):
    assert disk.sync_seconds(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_clock_before_this_program_was_made():
    now, past = datetime(2030, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)
    assert [bad(clock.judge(now, known)) for known in (True, False, None)] == [[], [], []]
    assert bad(clock.judge(past, False)) == [("clock", False)]
    assert clock.synchronised() in (True, False)


def test_names_that_many_machines_have():
    assert bad(machine.judge_name("raspberrypi", named=False)) == [("name", False)]
    assert bad(machine.judge_name("raspberrypi", named=True)) == []
    assert bad(machine.judge_name("shed", named=False)) == []
    assert bad(machine.judge_name("a" * 64, named=True)) == [("name", False)]


def test_memory_and_what_it_swaps_to():
    head = "Filename Type Size Used Priority\n"
    small, large = {"MemTotal": 240 << 10}, {"MemTotal": 1024 << 10}
    assert bad(machine.judge_memory(small, head, agent=False)) == [("memory", False)]
    assert bad(machine.judge_memory(small, head, agent=True)) == []
    assert "zram is gentler" in machine.judge_memory(large, head + "/dev/mmcblk0p3 partition 1 0 -2\n", agent=False)[0].text
    assert "compressed" in machine.judge_memory(large, head + "/dev/zram0 partition 1 0 100\n", agent=False)[0].text


def test_modules_are_there_loadable_or_neither(tmp_path):
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text("nf_tables 1 0 - Live 0x0\n")
    (folder / "modules.builtin").write_text("kernel/drivers/net/veth.ko\n")
    (folder / "modules.dep").write_text("kernel/fs/overlayfs/overlay.ko.xz:\nkernel/net/nft-chain-nat.ko: kernel/a.ko\n")
    known = kernel.modules("6.1", tmp_path)
    assert known.there == {"nf_tables", "veth"}
    assert known.loadable == {"overlay", "nft_chain_nat"}
    assert not kernel.modules("6.2", tmp_path).folder


def test_a_kernel_with_gaps():
    whole, upgraded = kernel.Modules((), (), "/lib/modules/6.1"), kernel.Modules((), ())
    assert bad(kernel.judge({}, whole, "6.1")) == []
    assert bad(kernel.judge({"vxlan": "Unknown device type."}, whole, "6.1")) == [("kernel vxlan", False)]
    assert bad(kernel.judge({"veth": "x"}, whole, "6.1")) == [("kernel veth", True)]
    assert "reboot" in kernel.judge({"veth": "x"}, upgraded, "6.1")[0].fix
    assert "reboot" not in kernel.judge({"veth": "x"}, whole, "6.1")[0].fix


def test_a_program_that_hangs_is_told():
    assert ask("sleep", "9", timeout=0.05) == (-1, "sleep did not answer within 0.05 s")
    assert ask("no-such-program")[0] == -1


def test_remedies_that_fail_are_told_and_stop_no_other(tmp_path):
    def fails(_receipt):
        raise OSError(1, "no")

    done, said = [], []
    found = [Finding("a", False, "", remedy=Remedy("mend a", fails)), Finding("b", False, "", remedy=Remedy("mend b", done.append)),
             Finding("c", True, "", remedy=Remedy("mend c", done.append)), Finding("d", False, "")]  # fmt: skip
    assert apply_remedies(found, Receipt(tmp_path), said.append)
    assert said == ["not fixed: mend a: no", "fixed: mend b"]
    assert len(done) == 1
