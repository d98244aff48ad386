"""Which families a Service gets, as a table over upstream's rules; and addresses of both on a cluster that has both."""

import pytest

from edgekube.api import catalog
from edgekube.apiserver.admission.families import init_families
from edgekube.apiserver.admission.services import ServiceAllocation
from edgekube.apiserver.allocators import ServiceValues
from edgekube.errors import Invalid
from tests.unit.apiserver.admission.test_services import Scene, cluster

FOUR, SIX, BOTH, SWAPPED = ("IPv4",), ("IPv6",), ("IPv4", "IPv6"), ("IPv6", "IPv4")
V4, V6 = "10.43.0.7", "fd43::7"


@pytest.mark.parametrize(
    ("configured", "spec", "policy", "families"),
    [
        (FOUR, {}, "SingleStack", FOUR),
        (SIX, {}, "SingleStack", SIX),
        (BOTH, {}, "SingleStack", FOUR),
        (SWAPPED, {}, "SingleStack", SIX),
        (BOTH, {"ipFamilies": ["IPv6"]}, "SingleStack", SIX),
        (BOTH, {"ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", BOTH),
        (FOUR, {"ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", FOUR),
        (BOTH, {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}, "PreferDualStack", SWAPPED),
        (BOTH, {"ipFamilyPolicy": "RequireDualStack"}, "RequireDualStack", BOTH),
        (BOTH, {"clusterIP": V6, "clusterIPs": [V6]}, "SingleStack", SIX),
        (BOTH, {"ipFamilyPolicy": "PreferDualStack", "clusterIP": V6, "clusterIPs": [V6, V4]}, "PreferDualStack", SWAPPED),
        (FOUR, {"clusterIP": "None", "clusterIPs": ["None"]}, "RequireDualStack", BOTH),
        (FOUR, {"clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}, "SingleStack", FOUR),
        (FOUR, {"clusterIP": "None", "clusterIPs": ["None"], "ipFamilyPolicy": "SingleStack"}, "SingleStack", FOUR),
    ],
)
def test_families_of_a_new_service(configured, spec, policy, families):
    spec = {"type": "ClusterIP", **spec}
    assert init_families(spec, None, configured) == []
    assert (spec["ipFamilyPolicy"], tuple(spec["ipFamilies"])) == (policy, families)


@pytest.mark.parametrize(
    ("configured", "spec", "field", "message"),
    [
        (FOUR, {"ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy", "this cluster is not configured for dual-stack services"),
        (FOUR, {"ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]", "not configured on this cluster"),
        (FOUR, {"clusterIP": V6, "clusterIPs": [V6]}, "spec.clusterIPs[0]", "IPv6 is not configured on this cluster"),
        (
            BOTH,
            {"ipFamilies": ["IPv4", "IPv6"]},
            "spec.ipFamilyPolicy",
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            BOTH,
            {"clusterIP": V4, "clusterIPs": [V4, V6]},
            "spec.ipFamilyPolicy",
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
        ),
    ],
)
def test_what_does_not_fit_is_refused(configured, spec, field, message):
    (problem,) = init_families({"type": "ClusterIP", **spec}, None, configured)
    assert (problem.field, problem.message.rsplit(": ", 1)[-1]) == (field, message)


DUAL = {"ipFamilyPolicy": "PreferDualStack", "clusterIP": V4, "clusterIPs": [V4, V6], "ipFamilies": ["IPv4", "IPv6"]}


def test_a_preference_is_not_reconsidered_by_an_update_of_something_else():
    old = {"ipFamilyPolicy": "PreferDualStack", "clusterIP": V4, "clusterIPs": [V4], "ipFamilies": ["IPv4"]}
    new = dict(old)
    assert init_families(new, old, BOTH) == []
    assert new == old
    new = old | {"ipFamilyPolicy": "RequireDualStack"}
    assert init_families(new, old, BOTH) == []
    assert new["ipFamilies"] == ["IPv4", "IPv6"]


def test_single_stack_alone_releases_the_second():
    new = DUAL | {"ipFamilyPolicy": "SingleStack"}
    assert init_families(new, DUAL, BOTH) == []
    assert (new["clusterIPs"], new["ipFamilies"]) == ([V4], ["IPv4"])
    new = DUAL | {"clusterIPs": [V4]}
    (problem,) = init_families(new, DUAL, BOTH)
    assert problem.message.endswith("must be 'SingleStack' to release the secondary cluster IP")


class DualScene(Scene):
    def __init__(self):
        super().__init__()
        self.values = ServiceValues(
            objects=self.world.objects, service_cidr="10.43.0.0/16,fd43::/112", node_ports=range(30000, 32768), spared=("10.43.0.1",)
        )
        self.plugin = ServiceAllocation(self.values)


async def test_both_addresses_come_and_go():
    scene = DualScene()
    old = await scene.stored(cluster(ipFamilyPolicy="RequireDualStack"))
    four, six = old["clusterIPs"]
    assert (old["clusterIP"], four.split(".")[0], six.split(":")[0]) == (four, "10", "fd43")
    assert scene.held == (2, 0)
    with pytest.raises(Invalid, match=f"failed to allocate IP {six}: provided IP is already allocated"):
        await scene.admit(cluster(ipFamilyPolicy="PreferDualStack", clusterIPs=["10.43.0.9", six]), name="other")
    assert scene.held == (2, 0)
    single = cluster(ipFamilyPolicy="SingleStack")
    request = await scene.admit(single, old)
    assert (single["clusterIPs"], single["ipFamilies"]) == ([four], ["IPv4"])
    await scene.world.put(catalog.SERVICE, "web", "a", spec=single)
    request.finish()
    assert scene.held == (1, 0)
    again = cluster(ipFamilyPolicy="PreferDualStack")
    request = await scene.admit(again, single)
    assert (again["clusterIPs"][0], len(again["clusterIPs"])) == (four, 2)
    request.finish()
