"""What agents and servers agree on beside the frames: how a connection becomes a tunnel, and which streams there are.

    agent -> server   GET /v1-edgekube/connect, Upgrade: edgekube-tunnel      over TLS with the node's certificate
    server -> agent   101, Edgekube-Servers: HOST:PORT, ...                   where else the server can be reached

    kind      label                         opened by   carries
    http                                    agent       HTTP to the API server, as the node of the certificate
    kubelet                                 server      HTTP to the kubelet server of that node
    pod       NAMESPACE/POD/PORT/SCHEME     server      bytes to a port of a pod that runs there
    servers   HOST:PORT,...                 server      nothing: the addresses have changed

No stream names a host: the tunnel leads from one end to the other and no further.
"""

PATH = "/v1-edgekube/connect"
PROTOCOL = "edgekube-tunnel"
SERVERS_HEADER = "Edgekube-Servers"
PROCESS_HEADER = "Edgekube-Process"  # another one at each start of an agent: two at the same time are two machines with one key
SERVER_NAME = "kubernetes.default.svc"  # in every serving certificate of the API, whatever its addresses; no node may be called so

HTTP, KUBELET, POD, SERVERS = "http", "kubelet", "pod", "servers"
