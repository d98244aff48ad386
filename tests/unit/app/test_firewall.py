"""Foreign firewalls as hosts have them: which rule stops what, and the command that helps. Listings come from the real nft."""

import json
import subprocess

import pytest

from edgekube.app.firewall import examine_firewall, findings, legacy_findings, needs_of
from edgekube.config import Settings
from edgekube.lib.nftwalk import Packet, blockers, parse
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "nft")

SETTINGS = Settings(node_name="pi")


def listed(text, *before):
    """`text` (nft) or commands (`before`) loaded into a namespace of its own, and listed."""
    script = "; ".join([*before, "nft -f -" if text else "true", "nft -j list ruleset"])
    done = subprocess.run(["unshare", "-n", "sh", "-ec", script], input=text, capture_output=True, text=True, check=True)
    return parse(json.loads(done.stdout))


def found(ruleset):
    return findings(SETTINGS, ruleset, needs_of(SETTINGS, uplink="eth0", agent=False))


FIREWALLD = """
table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_INPUT_ZONES {
        TRUSTED_IN
        iifname "eth0" goto filter_IN_public
        goto filter_IN_public
    }
    chain filter_FORWARD_ZONES {
        TRUSTED_FWD
        iifname "eth0" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_IN_public { tcp dport 22 accept
        PORTS
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain filter_FWD_public { reject with icmpx admin-prohibited
    }
    chain trusted { accept
    }
}
"""
UFW = """
table ip filter {
    chain INPUT { type filter hook input priority filter; policy drop; jump ufw-user-input
    }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump ufw-user-forward
    }
    chain ufw-user-input { tcp dport 22 accept
    }
    chain ufw-user-forward { }
}
"""
DOCKER = """
table ip filter {
    chain DOCKER-USER { return
    }
    chain FORWARD { type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
        oifname "docker0" ct state related,established accept
        iifname "docker0" oifname != "docker0" accept
    }
}
"""
PLAIN = """
table inet filter {
    chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iif "lo" accept; tcp dport { 22, 6443 } accept
    }
    chain forward { type filter hook forward priority 0; policy drop;
    }
}
"""


def firewalld(trusted="", ports=""):
    fwd = f"ip saddr {trusted} goto trusted" if trusted else ""
    text = FIREWALLD.replace("TRUSTED_IN", fwd).replace("TRUSTED_FWD", fwd)
    return listed(text.replace("PORTS", ports))


def test_an_open_host_and_our_own_table_stop_nothing():
    assert [finding.ok for finding in found(listed(""))] == [True]
    ours = "table ip edgekube_12345678 { chain guard { type filter hook forward priority 0; drop; }; }"
    assert [finding.ok for finding in found(listed(ours))] == [True]


def test_firewalld_names_its_rules_and_the_fix_is_exact():
    problems = found(firewalld())
    texts = [finding.text for finding in problems]
    assert any("chain filter_FWD_public in table inet firewalld" in text and "pods to reach each other" in text for text in texts)
    assert any("chain filter_INPUT in table inet firewalld" in text and "the API" in text for text in texts)
    assert not any("NodePorts" in text for text in texts)  # it lets through what was translated
    fixes = " ".join(finding.fix for finding in problems)
    assert "firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16 --add-source=10.43.0.0/16" in fixes
    assert "--add-port=6443/tcp" in fixes
    assert all(not finding.ok and not finding.fatal for finding in problems)


def test_firewalld_is_well_after_the_fix():
    assert [finding.ok for finding in found(firewalld("10.42.0.0/16", "tcp dport 6443 accept\nudp dport 8472 accept"))] == [True]


def test_ufw():
    (forward,) = (finding for finding in found(listed(UFW)) if "FORWARD" in finding.text)
    assert "the policy of chain FORWARD" in forward.text
    assert "ufw route allow from 10.42.0.0/16 && ufw route allow to 10.42.0.0/16" in forward.fix
    fixed = UFW.replace(
        "chain ufw-user-forward { }", "chain ufw-user-forward { ip saddr 10.42.0.0/16 accept; ip daddr 10.42.0.0/16 accept; }"
    )
    assert not [finding for finding in found(listed(fixed)) if "FORWARD" in finding.text]


def test_docker_drops_what_it_does_not_know():
    (forward,) = found(listed(DOCKER))
    assert forward.text.startswith("the host's firewall stops: ")
    assert "iptables -I FORWARD -s 10.42.0.0/16 -j ACCEPT && iptables -I FORWARD -d 10.42.0.0/16 -j ACCEPT" in forward.fix


def test_iptables_over_nft_with_expressions_nft_can_not_show():
    setup = ["iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"]
    (forward,) = found(listed("", *setup))
    assert "the policy of chain FORWARD (chain handle 1) in table ip filter" in forward.text
    reject = ["iptables-nft -A FORWARD -m comment --comment hi -j REJECT --reject-with icmp-host-prohibited"]
    (forward,) = found(listed("", *reject))
    assert "rule handle" in forward.text


def test_a_default_deny_of_ones_own():
    forward, *inputs = sorted(found(listed(PLAIN)), key=lambda finding: "chain input" in finding.text)
    assert "nft insert rule inet filter forward ip saddr 10.42.0.0/16 accept" in forward.fix
    assert len(inputs) == 1
    assert "the API" not in inputs[0].text
    assert "pods to ask the cluster's DNS" in inputs[0].text
    assert "nft insert rule inet filter input udp dport 8472 accept" in inputs[0].fix


def test_a_real_host_is_asked():
    with ns.namespace() as path:
        ns.inside(
            path,
            'nft "add table inet site; add chain inet site through { type filter hook forward priority 0 ; }; add rule inet site through drop"',
        )
        (problem,) = ns.call_inside(path, lambda: examine_firewall(SETTINGS, agent=False))
    assert "It is rule handle 2 of chain through in table inet site" in problem.text


PACKET = Packet("forward", "10.42.0.11", "10.42.1.11", "ek0", "ek1", "tcp", 80)


@pytest.mark.parametrize(
    ("rules", "stopped"),
    [
        ("drop", True),
        ("ip saddr 10.42.0.0/24 drop", True),
        ("ip saddr 10.43.0.0/24 drop", False),
        ("ip saddr != 192.0.2.0/24 drop", True),
        ("ip daddr { 10.42.1.0-10.42.1.99, 192.0.2.1 } drop", True),
        ("ip saddr @known drop", True),
        ("ip saddr @unknown drop", False),
        ("tcp dport 80 drop", True),
        ("tcp dport { 1-79, 81-65535 } drop", False),
        ("udp dport 80 drop", False),
        ("meta l4proto tcp reject with tcp reset", True),
        ("ip6 saddr ::/0 drop", False),
        ("icmp type echo-request drop", False),
        ('iifname "ek*" drop', True),
        ('iifname "eth0" drop', False),
        ("ct state invalid drop", False),
        ("ct state vmap { established : accept, invalid : drop }", False),
        ("ct state new accept\ndrop", False),
        ("ct status dnat accept\ndrop", True),
        ("limit rate 1/second drop", False),
        ("meta mark 1 drop", False),
        ("jump inner\ndrop", False),
        ("goto outer\naccept", True),
        ("ip saddr 10.42.0.0/16 return\ndrop", False),
    ],
)
def test_one_rule_and_one_packet(rules, stopped):
    text = f"""
    table inet t {{
        set known {{ type ipv4_addr; flags interval; elements = {{ 10.42.0.0/16 }}
        }}
        set unknown {{ type ipv4_addr; elements = {{ 192.0.2.1 }}
        }}
        chain inner {{ accept
        }}
        chain outer {{ drop
        }}
        chain c {{ type filter hook forward priority 0; policy accept;
            {rules}
        }}
    }}
    """
    assert bool(blockers(listed(text), PACKET)) is stopped


def test_a_drop_behind_an_accept_of_unknown_effect_is_only_possible():
    text = "table inet t { chain c { type filter hook forward priority 0; policy drop; meta mark 1 accept; }; }"
    (blocker,) = blockers(listed(text), PACKET)
    assert not blocker.certain


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([":FORWARD ACCEPT [0:0]"], False),
        ([":FORWARD DROP [0:0]"], True),
        ([":FORWARD DROP [0:0]", "-A FORWARD -i docker0 -j ACCEPT"], True),
        ([":FORWARD DROP [0:0]", "-A FORWARD -j ACCEPT"], False),
        ([":FORWARD DROP [0:0]", "-A FORWARD -s 10.42.0.0/16 -j ACCEPT", "-A FORWARD -d 10.42.0.0/16 -j ACCEPT"], False),
    ],
)
def test_legacy_iptables(lines, problem):
    found = legacy_findings(SETTINGS, "\n".join(["*filter", ":INPUT ACCEPT [0:0]", *lines, "COMMIT"]))
    assert bool(found) is problem
    if problem:
        assert "iptables-legacy -I FORWARD -s 10.42.0.0/16 -j ACCEPT" in found[0].fix
