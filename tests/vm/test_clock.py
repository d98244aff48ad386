"""A machine without a clock battery: it starts years in the past, and the cluster works before and after somebody sets the time."""

import pytest

from tests.vm.lab import lab, short_folder
from tests.vm.product import Site, deployment, eventually


@pytest.fixture(scope="module")
def site():
    with short_folder() as folder, lab(folder, 1) as machines:
        made = Site(folder, machines)
        made.install_server()
        made.apply(deployment(replicas=2))
        eventually(lambda: made.all_ready(2))
        yield made


def test_a_cluster_comes_back_on_a_machine_in_1970(site):
    """kubectl runs here, where the year is right: its own check of certificates is not what is tested."""
    vm = site.server
    pods = {pod[0] for pod in site.pods()}
    vm.cut()
    vm.clock = "1970-01-01T00:00:00"
    vm.start()
    vm.wait()
    # systemd sets a clock before its own build to that; now it is moved on to where the hardware was.
    vm.run("systemctl stop edgekube; date -s '1970-01-01 00:10:00'; systemctl start edgekube")
    assert vm.run("date +%Y") == "1970"
    vm.run("edgekube status --quiet --wait 240")
    assert {pod[0] for pod in eventually(lambda: site.all_ready(2), patience=600)} == pods
    site.apply(deployment("later", replicas=1))
    eventually(lambda: site.all_ready(1, "later"))
    made = site.get("deployment", "later")["metadata"]["creationTimestamp"]
    assert not made.startswith("1970"), "time does not go below what was seen before"


def test_setting_the_clock_right_disturbs_nothing(site):
    vm = site.server
    vm.run("date -s @$(( $(stat -c %Y /etc/edgekube/kubeconfig.yaml) + 86400 ))")
    pods = {(pod[0], pod[4]) for pod in site.pods()}
    site.apply(deployment("after", replicas=1))
    eventually(lambda: site.all_ready(1, "after"))
    assert {(pod[0], pod[4]) for pod in site.pods()} == pods
    assert site.get("node", "vm1")["status"]["conditions"]
