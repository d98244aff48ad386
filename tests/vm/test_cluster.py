"""Two fresh Debian machines from outside: only the built file and install.sh (and, with no network, deb files and an image) are copied there.

One becomes the server, one joins with the printed command, kubectl of this host deploys over both; both lose power and return; a machine
reboots; both are uninstalled and as clean as they were. The tests of this file are one story and run in its order.
"""

import pytest

from tests.vm.lab import lab, short_folder
from tests.vm.picture import PACKAGES, difference, picture
from tests.vm.product import Site, deployment, eventually, fetch, service


@pytest.fixture(scope="module")
def site():
    with short_folder() as folder, lab(folder, 2, bare=True) as machines:
        yield Site(folder, machines)


@pytest.fixture(scope="module")
def untouched(site):
    """What the machines were before. On the agent the deb files are installed by hand, so that nothing but edgekube makes a difference."""
    for vm in site.machines:
        assert vm.run("command -v podman python3 nft", check=False) == "", "a fresh machine"
        site.deliver(vm, debs=True)
    site.machines[1].run("for n in 1 2; do dpkg -i /root/inbox/debs/*.deb >/dev/null 2>&1 && break; done; podman info >/dev/null", patience=900)
    return [picture(vm) for vm in site.machines]


def works(site, *, since=()):
    """Pods on both nodes answer each other over the overlay, through DNS and Services, and the host through a node port."""
    pods = eventually(lambda: site.all_ready(2, since=since), patience=600)
    assert {pod[1] for pod in pods} == {"vm1", "vm2"}
    (first, _, near, *_), (second, _, far, *_) = pods
    eventually(lambda: site.kubectl("exec", first, "--", "wget", "-qO-", f"http://{far}:8080/index.html") == second)
    eventually(lambda: site.kubectl("exec", second, "--", "wget", "-qO-", f"http://{near}:8080/index.html") == first)
    for name in (first, second):
        words = ["wget", "-qO-", "http://web.default.svc.cluster.local/index.html"]
        eventually(lambda name=name, words=words: "web-" in site.kubectl("exec", name, "--", *words))
    port = site.get("service", "web")["spec"]["ports"][0]["nodePort"]
    for vm in site.machines:
        eventually(lambda vm=vm: "web-" in fetch(vm, site.server.address, port))
    return pods


def test_a_server_from_nothing_and_its_first_deployment(site, untouched, capsys):
    took = site.install_server()
    site.apply(deployment(replicas=1), service(type="NodePort"))
    eventually(lambda: site.all_ready(1))
    with capsys.disabled():
        print(f"\ninstall.sh on the server, with the deb files: {took:.0f} s")
    assert site.server.run("systemctl is-active edgekube") == "active"


def test_a_machine_joins_with_the_printed_command_and_pods_talk_over_the_overlay(site, untouched, capsys):
    took = site.join(site.machines[1])
    with capsys.disabled():
        print(f"\ninstall.sh on the agent, whose packages were there: {took:.0f} s")
    site.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")
    site.kubectl("delete", "deployment", "web")
    site.apply(deployment(replicas=2, spread=True))
    works(site)


def test_both_lose_power_and_return(site, untouched):
    before = works(site)
    for vm in site.machines:
        vm.cut()
    for vm in site.machines:
        vm.start()
    for vm in site.machines:
        vm.wait()
    eventually(lambda: len(site.get("nodes")["items"]) == 2)
    assert {pod[0] for pod in works(site, since=before)} == {pod[0] for pod in before}, "the same pods, and nobody did anything"


def test_a_machine_reboots(site, untouched):
    before = {pod[0] for pod in works(site)}
    site.machines[1].reboot()
    assert {pod[0] for pod in works(site)} == before
    assert "Sending SIGKILL to PID" not in site.machines[1].run("journalctl -b -1 --no-pager", check=False)


def test_uninstalled_they_are_as_they_were(site, untouched):
    server, agent = site.machines
    for vm, before, without in ((agent, untouched[1], frozenset()), (server, untouched[0], PACKAGES)):
        vm.run("edgekube uninstall --yes --delete-volumes", patience=600)
        assert difference(before, picture(vm), without=without) == {}
