"""The fixed part of our nftables table: maps, hooks, and the rules every packet may meet. Text only; what varies is in `ruleset`.

translate      limited (source ranges) > services > nodeports: verdict maps, so the cost per packet does not depend on their number
post           masquerades what is marked unless its endpoint is here (the answer passes here anyway, and the client's address is
               kept), hairpins, what clients outside sent to a ClusterIP, and pods on their way out of the cluster
guard_*        first packets that nothing translated, for a Service address or a front without endpoints, are refused at once
"""

import re

MASQUERADE_BIT = 0x4000
DROP = 0x3FFFFFFF  # the mark of a front that drops
TAG = 0x45000000  # in the mark that carries an endpoint's number through one chain; it is gone before anybody routes by marks

NO_MASQUERADE = {"ip": ("224.0.0.0/4",), "ip6": ("ff00::/8", "fe80::/10")}

_LOOPBACK_POST = "add rule ip {t} post ct status dnat ip saddr 127.0.0.0/8 masquerade\n"
_LOOPBACK_SPOOF = 'add rule ip {t} spoof iifname != "lo" ip daddr 127.0.0.0/8 drop\n'
_SOURCE_SPOOF = (  # IPv6 has no reverse path filter of its own
    'add rule ip6 {t} spoof iifname "ek*" ip6 saddr != {{ ::, fe80::/10 }} fib saddr . iif oif missing drop\n'
)
_EARLY = """add chain ip6 {t} guard_pre {{ type filter hook prerouting priority -90 ; policy accept ; }}
add rule ip6 {t} guard_pre ct state new ip6 daddr {services} fib daddr type != local jump refuse
"""  # the kernel does not forward to a route through `lo` here

_TEMPLATE = """
add table FAMILY {t}
add map FAMILY {t} services {{ type ADDRESS . inet_proto . inet_service : mark ; }}
add map FAMILY {t} nodeports {{ type inet_proto . inet_service : mark ; }}
add map FAMILY {t} shapes {{ type mark : verdict ; }}
add map FAMILY {t} affine {{ type ADDRESS . inet_proto . inet_service : verdict ; }}
add map FAMILY {t} affine_ports {{ type inet_proto . inet_service : verdict ; }}
add map FAMILY {t} endpoints {{ type ADDRESS . inet_proto . inet_service . mark : ADDRESS . inet_service ; }}
add map FAMILY {t} port_endpoints {{ type inet_proto . inet_service . mark : ADDRESS . inet_service ; }}
add map FAMILY {t} limited {{ type ADDRESS . inet_proto . inet_service : verdict ; }}
add set FAMILY {t} refused {{ type ADDRESS . inet_proto . inet_service ; }}
add set FAMILY {t} refused_ports {{ type inet_proto . inet_service ; }}
add set FAMILY {t} loops {{ type ADDRESS . ADDRESS ; }}
add chain FAMILY {t} translate
add chain FAMILY {t} dispatch
add chain FAMILY {t} refuse
add chain FAMILY {t} pre {{ type nat hook prerouting priority -100 ; policy accept ; }}
add chain FAMILY {t} out {{ type nat hook output priority -100 ; policy accept ; }}
add chain FAMILY {t} post {{ type nat hook postrouting priority 100 ; policy accept ; }}
add chain FAMILY {t} unmark_pre {{ type filter hook prerouting priority -99 ; policy accept ; }}
add chain FAMILY {t} unmark_out {{ type filter hook output priority -99 ; policy accept ; }}
add chain FAMILY {t} spoof {{ type filter hook prerouting priority -150 ; policy accept ; }}
add chain FAMILY {t} guard_input {{ type filter hook input priority -10 ; policy accept ; }}
add chain FAMILY {t} guard_forward {{ type filter hook forward priority -10 ; policy accept ; }}
add chain FAMILY {t} guard_output {{ type filter hook output priority -10 ; policy accept ; }}
flush table FAMILY {t}
flush map FAMILY {t} services
flush map FAMILY {t} nodeports
flush map FAMILY {t} shapes
flush map FAMILY {t} affine
flush map FAMILY {t} affine_ports
flush map FAMILY {t} endpoints
flush map FAMILY {t} port_endpoints
flush map FAMILY {t} limited
flush set FAMILY {t} refused
flush set FAMILY {t} refused_ports
flush set FAMILY {t} loops
add rule FAMILY {t} translate FAMILY daddr . meta l4proto . th dport vmap @limited
add rule FAMILY {t} translate meta mark set FAMILY daddr . meta l4proto . th dport map @services goto dispatch
add rule FAMILY {t} translate FAMILY daddr . meta l4proto . th dport vmap @affine
add rule FAMILY {t} translate fib daddr type local meta mark set meta l4proto . th dport map @nodeports goto dispatch
add rule FAMILY {t} translate fib daddr type local meta l4proto . th dport vmap @affine_ports
add rule FAMILY {t} dispatch meta mark vmap @shapes
add element FAMILY {t} shapes {{ {drop:#x} : drop }}
add rule FAMILY {t} pre jump translate
add rule FAMILY {t} out jump translate
add rule FAMILY {t} unmark_pre meta mark and 0xff000000 == {tag:#x} meta mark set 0x0
add rule FAMILY {t} unmark_out meta mark and 0xff000000 == {tag:#x} meta mark set 0x0
add rule FAMILY {t} post ct status dnat FAMILY saddr . FAMILY daddr @loops masquerade
LOOPBACK_POSTadd rule FAMILY {t} post ct mark and {bit:#x} == {bit:#x} ct status dnat FAMILY daddr . FAMILY daddr != @loops masquerade
add rule FAMILY {t} post ct status dnat ct original FAMILY daddr {services} FAMILY saddr != {pods} masquerade
add rule FAMILY {t} post FAMILY saddr {pods} FAMILY daddr != {{ {spared} }} masquerade
LOOPBACK_SPOOFadd rule FAMILY {t} refuse meta l4proto tcp reject with tcp reset
add rule FAMILY {t} refuse reject
add rule FAMILY {t} guard_input ct state != new accept
add rule FAMILY {t} guard_input FAMILY daddr != {services} FAMILY daddr . meta l4proto . th dport @refused jump refuse
add rule FAMILY {t} guard_input fib daddr type local meta l4proto . th dport @refused_ports jump refuse
add rule FAMILY {t} guard_forward ct state != new accept
add rule FAMILY {t} guard_forward FAMILY daddr {services} jump refuse
add rule FAMILY {t} guard_forward FAMILY daddr . meta l4proto . th dport @refused jump refuse
add rule FAMILY {t} guard_output ct state != new accept
add rule FAMILY {t} guard_output FAMILY daddr {services} fib daddr type != local jump refuse
add rule FAMILY {t} guard_output FAMILY daddr . meta l4proto . th dport @refused fib daddr type != local jump refuse
"""


def _frame(family: str, address: str, post: str, spoof: str) -> str:
    text = _TEMPLATE.replace("LOOPBACK_POST", post).replace("LOOPBACK_SPOOF", spoof)
    return text.replace("FAMILY", family).replace("ADDRESS", address)


FRAME = {"ip": _frame("ip", "ipv4_addr", _LOOPBACK_POST, _LOOPBACK_SPOOF), "ip6": _frame("ip6", "ipv6_addr", "", _SOURCE_SPOOF) + _EARLY}
FIXED_CHAINS = frozenset(re.findall(r"add chain \S+ \S+ (\w+)", FRAME["ip6"]))
FIXED_SETS = frozenset(re.findall(r"add set \S+ \S+ (\w+)", FRAME["ip6"]))
