"""What makes a machine an agent: it joins, keeps one connection to a server, proves who it is, and finds the server again.

Context: agents stand behind NAT, on links that come and go, with addresses that change on both sides, and their clock may be wrong.
Decision: agents only dial out. One TLS connection to the server's one port carries everything: the agent's own API requests and watches,
and, opened by the server, requests to this node's kubelet. Who a node is, is its key; its address and even its host name are not.

    join.py        token -> CA check (before anything is sent) -> signing request -> identity on disk
    identity.py    name, key and certificates of this node; one folder, mode 0700
    renewal.py     certificates renewed in process at two thirds of their life
    link.py        the one connection: dial, keep alive, dial again with jittered back-off; several addresses, names resolved anew each time
    connector.py   the HTTP client's requests as streams of that connection
    discovery.py   asking the local network where the server with our CA is now

The server's side of the connection is apiserver/tunnel.py; the frames both speak are lib/mux.py.
"""
