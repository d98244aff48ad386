"""Services in the kernel: one nftables table of our own, kept equal to Services and EndpointSlices.

    model.py    Services + slices -> Plan (pure)         ruleset.py   Plan -> nft text, whole or as a difference (pure)
    conntrack.py stale UDP flows                          lib/nft.py   the door to nftables
    component.py watches, coalesces, applies, re-asserts when somebody else flushes the table

Decision: translations are elements of maps, not chains per Service: the rules evaluated per packet and the cost of one change do not grow
with the number of Services (0.12 ms per change at 5,000; chains: 20 ms). Only Services with client affinity have chains of their own.
Foreign tables are never read for decisions nor written. Packets for a Service address that nothing translates are refused at once.

The table (ip family), for the first packet of each connection:

    pre, out   ip daddr . proto . dport  vmap @services   ->  goto n<count>: mark = random below count;  dnat to (.. . mark) map @endpoints
               local address: proto . dport vmap @nodeports -> goto p<count> (same, by port; marks the connection for masquerading)
    post       marked, hairpin, and pod-to-outside connections are masqueraded
    guard      Service addresses left untranslated are rejected; 127.0.0.0/8 from pods is dropped
"""
