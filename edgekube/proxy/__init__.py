"""Services in the kernel: translations of our own, kept equal to Services and EndpointSlices, in whatever way the kernel offers.

    services.py  one Service + slices -> targets (pure)     choice.py   which endpoints: readiness, policies, hints (pure)
    model.py     Front, Target, Endpoint: what backends get  book.py     who has a front that two claim (pure)
    backend.py   what a backend must do                      component.py watches, plans, drives one backend
    nftables.py  the backend for nftables                    ruleset.py, frame.py  targets -> nft text (pure)
    conntrack.py stale UDP flows                             health.py   health check node ports, /healthz on 10256

Decision: in nftables translations are elements of maps, not chains per Service: the rules evaluated per packet and the cost of one change
do not grow with the number of Services (0.12 ms per change at 5,000; chains: 20 ms). Only Services with client affinity or source ranges
have chains of their own. Foreign tables are never read for decisions nor written. The client's address is kept whenever the endpoint is on
the node where the connection came in, also with externalTrafficPolicy Cluster: the answer passes there anyway.
"""
