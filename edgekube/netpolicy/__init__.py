"""NetworkPolicy on a node: what may reach its pods and what they may reach.

Context: to enforce a policy a node must know addresses of pods on other nodes, but a node may not read other nodes' pods (a stolen agent
reads only what its pods need). Decision: the selectors are resolved once, on the server, by the controller `networkpolicy`, which writes
one PolicySlice per policy (networking.edgekube.io): the addresses a policy admits and the labels it selects, nothing else. Every node
watches those and matches its own pods itself, whose addresses it knows before the server does: so a pod is isolated before its first
container starts, and a node that starts without its server isolates its pods, whatever addresses they get.

    controllers/networkpolicy   NetworkPolicy, Namespace, Pod -> PolicySlice                        (on the server)
    slices.py, model.py         PolicySlices + own pods -> Plan (pure)     ruleset.py  Plan -> nft text, whole or as a difference (pure)
    component.py, table.py      watches, coalesces, applies, re-asserts    attach.py   no pod starts before its rules

The table `edgekube_<instance>_policy` (inet: both families) stands beside the proxy's and is absent while no policy selects a pod of the
node. Its maps by pod address and sets by group of peers change element by element.

What upstream leaves open, and what is done here:
- Existing connections: every packet of the side that opened a connection is judged, so a connection ends when it is no longer admitted and
  goes on when it is again. Replies pass while the connection is known, whatever the policies of the one that replies say.
- A pod's own node (probes, host processes, pods with the host's network) always reaches it. Other nodes, and pods with the host's network
  there, are addresses: ipBlock admits them. Such pods are never isolated. A pod always reaches itself, through its Service too.
- Services are judged by the pods behind them; ipBlock never sees a ClusterIP. A client from outside has its own address where it enters the
  cluster; the node it entered by, if it was sent on to another.
- DNS: it is answered by the node, at the address of the Service kube-dns; that address counts as a pod of kube-system with the label
  `k8s-app: kube-dns` and the ports `dns` and `dns-tcp`. A policy that isolates egress must admit it like any other.
- ICMP passes where all ports are admitted, and errors about admitted connections always.
- A new pod is isolated from its first packet. As a peer it is known to pods of its own node at once, to others when the server has told.
- Ports with names: in ingress those of the isolated pod, in egress those of each peer; they never admit an address that is no pod.

Every mode of the proxy that translates in the kernel works with this (with IPVS, net/ipv4/vs/conntrack must be 1, and a NodePort of the
pod's own node is judged as that node's address). Limit: the mode `userspace` connects from the host, so what it carries is judged as the
node's own traffic.
"""
