"""The cluster's DNS, in process on every node, listening on the cluster DNS address (which the network component puts on `lo`).

    zone.py      names -> answers, by the Kubernetes DNS specification 1.1.0 (pure)
    forward.py   everything else: the host's own upstream servers, with a small cache that is served stale when they are gone
    component.py sockets, truncation, caches of Services and EndpointSlices

Decision: no records are kept; a question looks the Service up in the node's cache and decodes what it needs (tens of microseconds), so DNS
follows a change as soon as the cache does and costs no memory of its own. Until the cache has synced, cluster names get SERVFAIL, not
NXDOMAIN: a client must not remember that a name does not exist.
"""
