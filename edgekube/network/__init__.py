"""The pod network on this node: routed /32 veths, no bridge.

Context: a bridge needs br_netfilter for Services and policies between pods of one node, and hairpin mode for a pod that calls itself;
hosts differ in both. Decision: every pod gets a veth whose host end is a route of its own.

    pod   eth0 10.42.0.7/32, default via 169.254.1.1 (static neighbour ee:ee:ee:ee:ee:ee: no ARP, no default route of the host needed)
    host  ek<hash> ee:ee:ee:ee:ee:ee, route 10.42.0.7/32 dev ek<hash>, static neighbour, strict reverse path filter (no spoofing)
    lo    10.42.0.1/32 (the node's own address in the pod range: source towards pods), 10.43.0.10/32 (DNS),
          route <service range> dev lo src 10.42.0.1, so that ClusterIPs work from the host without any default route

The kernel is the only state: links carry `edgekube:<instance>:<pod uid>` as their alias, and a restarted edgekube reads its attachments
from there. Consequences: kill -9 between any two steps leaves at worst a half-made link, which the next attach of that pod replaces and
`retain` removes. Only this package imports pyroute2, and only inside its one network thread (thread.py says why).
"""
