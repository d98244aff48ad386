"""The pod network: routed veths on each node, no bridge, and an overlay between nodes that heals and tests itself.

Context: a bridge needs br_netfilter for Services and policies between pods of one node, and hairpin mode for a pod that calls itself;
hosts differ in both. Decision: every pod gets a veth whose host end is a route of its own.

    pod   eth0 10.42.0.7/32, default via 169.254.1.1 (static neighbour ee:ee:ee:ee:ee:ee: no ARP, no default route of the host needed)
               fd42::7/128, default via fe80::ecee:eeff:feee:eeee        (where there is a range of the second family)
    host  ek<hash> ee:ee:ee:ee:ee:ee, route 10.42.0.7/32 dev ek<hash>, static neighbour, strict reverse path filter (no spoofing)
    lo    10.42.0.1/32 (the node's own address in the pod range: source towards pods), 10.43.0.10/32 (DNS),
          route <service range> dev lo src 10.42.0.1, so that ClusterIPs work from the host without any default route
    ekv<hash>  VXLAN to the other nodes: one route, neighbour and FDB entry for each (plan.py), none on a node alone

    addresses.py   which addresses this host has, and which of them is the node's: followed live
    plan.py        Nodes -> what should be          changes.py  what should be, what there is -> what to do        (pure, with model.py)
    rtnl.py        what there is                    kernel.py   doing it          watch.py, events.py  who took something apart
    guard.py       only nodes may send to the tunnel's port          collisions.py  what of our ranges the host uses already
    podlinks.py    attached pods (links.py makes one, ipam.py numbers them)       thread.py   where pyroute2 runs
    selftest.py    does it carry packets (probe.py asks, offload.py mends, verdict.py words it, publish.py tells it)

The kernel is the only state: links carry `edgekube:<instance>:<pod uid>` as their alias, our routes have a protocol number of their own
(231), addresses on `lo` a label; a restarted edgekube reads its attachments from there. Consequences: kill -9 between any two steps leaves
at worst a half-made link, which the next attach of that pod replaces and `retain` removes; whatever is missing or too much on our links is
put right by the next pass, and foreign links, routes and addresses are never touched. A pod's link that somebody deletes is made again
with the same address, and its connections live on. Only this package imports pyroute2, and only inside its one network thread.

Limits: nodes reach each other over one family of the underlay (that of their first address); two nodes of different instances share a
network namespace only if one of them has no peers (VNI and port are one per cluster).
"""
