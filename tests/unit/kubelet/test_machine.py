"""What a machine has is looked at again and again."""

from dataclasses import replace

from edgekube.kubelet.machine import read_machine, resized


def test_a_machine_that_got_more_memory_or_processors_says_so(tmp_path):
    now = read_machine(tmp_path)
    assert resized(now) is now
    assert resized(replace(now, memory=now.memory - (1 << 20))).memory == now.memory - (1 << 20), "a little is no news"
    assert resized(replace(now, memory=now.memory // 2)) == now
    assert resized(replace(now, cpus=now.cpus + 1)) == now
