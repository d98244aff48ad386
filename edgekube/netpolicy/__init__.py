"""NetworkPolicy on a node: what may reach its pods and what they may reach.

Context: to enforce a policy a node must know addresses of pods on other nodes, but a node may not read other nodes' pods (a stolen agent
reads only what its pods need). Decision: the selectors are resolved once, on the server, by the controller `networkpolicy`, which writes
one PolicySlice per policy (networking.edgekube.io): the addresses a policy selects and admits, nothing else. Every node watches those and
turns the ones that select its own pods into sets of an nftables table of its own, beside the proxy's.

    controllers/networkpolicy   NetworkPolicy, Namespace, Pod -> PolicySlice           (on the server)
    netpolicy                   PolicySlice -> table, sets changed element by element   (on every node)
"""
