"""Only nodes may put packets into the overlay."""

from edgekube.network.guard import rules
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "nft")


def load(path, text):
    ns.sh(f"nsenter --net={path} nft -f - <<'END'\n{text}\nEND")


def test_the_table_is_whole_each_time_and_gone_without_nodes():
    with ns.namespace() as path:
        for nodes in (["192.0.2.1"], ["192.0.2.2", "2001:db8::2"], ["2001:db8::3"]):
            load(path, rules("edgekube_i_overlay", 8472, nodes))
            shown = ns.inside(path, "nft list ruleset")
            assert all(node in shown for node in nodes)
            assert shown.count("192.0.2.") == len([node for node in nodes if "." in node])
            assert shown.count("drop") == 2
        load(path, rules("edgekube_i_overlay", 8472, []))
        assert ns.inside(path, "nft list ruleset") == ""
