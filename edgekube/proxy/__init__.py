"""Services in the kernel: translations of our own, kept equal to Services and EndpointSlices, in whatever way the kernel offers.

    services.py  one Service + slices -> targets (pure)     choice.py   which endpoints: readiness, policies, hints (pure)
    model.py     Front, Target, Endpoint: what backends get  book.py     who has a front that two claim (pure)
    backend.py   what a backend must do                      component.py watches, plans, drives one backend
    modes.py     which backend: wanted, possible; old rules
    nftables.py  the backend for nftables                    ruleset.py, frame.py  targets -> nft text (pure)
    iptables.py  the backend for iptables                    iptext.py  targets -> chains (pure)  ipwatch.py  what others do to them
    ipvs.py      IPVS, with nftables around it               ipvsplan.py  (pure)  ipvslink.py, ipvsdrain.py, localroutes.py  the kernel
    userspace.py relays where nothing else works             sockfilter.py, balance.py (pure)  tcprelay.py, udprelay.py, quota.py
    conntrack.py stale UDP flows                             health.py   health check node ports, /healthz on 10256

--proxy-mode    change at 1,000 Services   connection   beside
nftables        0.5 ms                     0.16 ms      the default
iptables        19 ms (27 ms legacy)       0.22 ms      affinity remembers 100 clients per endpoint
ipvs            (needs ip_vs; not measured)             never by itself; no NodePorts on 127.0.0.1; nftables for source ranges and such
userspace       0.6 ms                     0.75 ms      endpoints see the node's address; connections end with the process

Without --proxy-mode the first of nftables, iptables, userspace that the kernel can do is used; another than the wanted one is an Event of
the node. Agents take the server's mode unless theirs is set. `tests/unit/proxy/test_packets.py` is the one suite of all.

Decision: in nftables translations are elements of maps, not chains per Service: the rules evaluated per packet and the cost of one change
do not grow with the number of Services (0.12 ms per change at 5,000; chains: 20 ms). Only Services with client affinity or source ranges
have chains of their own. Foreign tables are never read for decisions nor written. The client's address is kept whenever the endpoint is on
the node where the connection came in, also with externalTrafficPolicy Cluster: the answer passes there anyway.
"""
