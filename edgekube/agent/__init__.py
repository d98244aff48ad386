"""What makes a machine an agent: it joins, keeps one connection to a server, proves who it is, and finds the server again.

Context: agents stand behind NAT, on links that come and go, with addresses that change on both sides, and their clock may be wrong.
Decision: agents only dial out. One TLS connection to the server's one port carries everything: the agent's own API requests and watches,
and, opened by the server, requests to this node's kubelet. Who a node is, is its key; its address and even its host name are not.

    join.py        token -> CA check (before anything is sent) -> signing request -> identity on disk
    authority.py   asking a server that nobody has vouched for yet who it is
    signing.py     a certificate through a CertificateSigningRequest of the API
    identity.py    name, key and certificates of this node; one folder, mode 0700
    renewal.py     certificates renewed in process at two thirds of their life, by proof of the key if they have ended
    settings.py    what all nodes of the cluster have alike: learnt, kept, followed
    refusal.py     why a machine is no node
    link.py        the one connection: dial, keep alive, dial again (pace.py); reach.py tries all addresses, dial.py one
    servers.py     the addresses that servers may have, remembered on disk
    connector.py   the HTTP client's requests as streams of that connection
    inbound.py     what the server may ask of this node through it: the kubelet server, and pods that run here
    discovery.py   asking the local network where the server with our CA is now

The server's side of the connection is apiserver/tunnel.py; what both speak is lib/mux.

Who may do what with the connection, each with a test:
- only a server with a certificate of our authority and the API's own name is spoken to, wherever the address came from (tests/unit/agent);
- only the holder of a node's certificate has a tunnel, as that node and nobody else; requests through it have that node's rights and no
  others (tests/api/tunnel);
- no stream names a host: the server reaches this kubelet and ports of pods that run here, the agent reaches the API and nothing behind it;
- who answers on the local network can make an agent try a few addresses, no more; what a server answers is never longer than the question;
- a peer that breaks the protocol, floods or does not read ends its own connection and costs bounded memory (tests/unit/lib/mux).
"""
