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

THREAT MODEL of joining, nodes, the tunnel and what lies on agents. Each claim is followed by its tests, below tests/.

What is protected: who may speak as a node or as the API (keys); Secrets and ConfigMaps; what runs on nodes; whom Services lead to; that
server and nodes go on working.

Somebody on the network, with nothing
 1  learns the authority's certificate, version and health, nothing else, from the API, and nothing at all from a node's own port.
        api/test_auth.py::test_anonymous_sees_health_and_version_only   api/test_auth.py::test_the_authority_is_public_and_only_to_be_read
        multinode/test_threats.py::test_nobody_without_rights_gets_anything_from_the_port_of_a_node
        multinode/test_threats.py::test_there_is_no_port_that_asks_for_nothing_but_health
 2  who stands between a joining machine and its server hears a question and no token: the authority is compared before anything is sent.
        unit/agent/test_join.py::test_somebody_in_between_hears_nothing_but_a_question
        unit/agent/test_join.py::test_a_relay_that_shows_the_true_authority_gets_no_further
 3  is no server to a node that has joined: that takes a certificate of our authority with the API's own name, wherever its address is from.
        unit/agent/test_dial.py::test_who_the_server_is_its_certificate_says_and_not_its_address
        unit/lib/test_tlsclock.py::test_all_else_is_still_verified
 4  who answers questions on the local network makes an agent try a few addresses; who asks them gets few answers, none longer than asked.
        api/tunnel/test_tunnel.py::test_hints_of_strangers_do_not_keep_an_agent_from_its_server
        multinode/test_discovery.py::test_a_flood_of_questions_gets_few_answers_and_no_larger_ones
 5  puts no packets into the overlay, unless with the address of a node as sender (VXLAN proves nothing: where the LAN is hostile, that is
    accepted and needs a network that is not).
        multinode/test_overlay_kinds.py::test_only_nodes_may_put_packets_into_the_overlay
 6  takes neither the memory nor the last connection of the server or a node: silence, strangers and unfinished bodies are bounded.
        api/test_threats_strangers.py::test_who_asks_for_nothing_is_put_out
        api/test_threats_strangers.py::test_strangers_leave_room_for_nodes
        api/test_threats_strangers.py::test_bodies_that_never_end_cost_bounded_memory
        unit/kubelet/server/test_server.py::test_strangers_take_only_so_many_connections
 7  renews nobody's certificate: that takes the pinned key. Who asks from very many addresses can delay the renewal of others (accepted).
        api/test_renewal.py::test_what_is_not_renewed   api/test_renewal.py::test_requests_are_few

Somebody with a join token (a token's id is public; its secret has 82 bits and is compared in constant time)
 8  that is wrong, has expired, is used up or was revoked: gets a line that says so, and nothing else. Only who shows the right secret
    learns more than that it is wrong. Expiry goes by the server's clock, which never falls below its time floor.
        api/test_joining.py::test_each_bad_token_has_its_own_line
        api/test_joining.py::test_a_token_lets_in_as_many_machines_as_it_says
        api/test_joining.py::test_two_machines_at_once_use_a_token_for_one_only_once
 9  that is good: may ask for a certificate of a node, sees the requests of others (public keys), gets no name that a running machine has
    unless the token was made for it, and no more machines than the token says. He does get a machine in: a token is as good as a node.
        api/test_joining.py::test_what_a_token_can_do   api/test_joining.py::test_a_name_in_use_is_told_to_the_newcomer
        api/test_joining.py::test_a_token_bound_to_a_name_may_replace_it_and_nothing_else
10  does not find one in the process list or in a log. Unit files, shell histories and environments are the user's: --token-file.
        multinode/test_threats.py::test_a_token_is_neither_shown_nor_told
        unit/lib/test_argv.py::test_a_secret_is_not_shown_and_still_known

Somebody with the disk of a node
11  finds no Secret in clear: volumes and what podman writes down are in memory (swap, if there is any, is the user's to encrypt), what is
    remembered is sealed, bound to file, place and past. Key and state lie on one disk: who has all of it has what that node's pods need
    (accepted: another KeySource, a TPM, is the way out).
        multinode/test_threats.py::test_no_secret_of_a_pod_is_on_the_disk   multinode/test_alone.py::test_rebooted_alone_and_back
        unit/lib/test_sealed.py::test_only_root_reads_it_and_nothing_is_in_clear   unit/lib/test_sealed.py::test_tampering_is_noticed
        unit/lib/test_sealed.py::test_another_key_reads_nothing
12  is that node until it is revoked, and no other: a copy of the disk becomes no second node.
        api/test_joining.py::test_a_copied_disk_does_not_become_a_second_node
13  is nobody within 2 s of `edgekube node revoke`, on open connections too, and that key never comes back, under whatever name, with
    whatever token. The tokens of its pods end with its pods.
        multinode/test_trust.py::test_a_revoked_node_is_out_within_two_seconds_and_may_come_back_as_another
        api/test_revocation.py::test_an_agents_one_connection_ends_too_and_does_not_come_back
        api/test_joining.py::test_a_revoked_node_does_not_come_back   api/test_renewal.py::test_a_revoked_node_is_not_renewed
14  with another user's rights on a live machine reads nothing: all of it is for root.
        multinode/test_threats.py::test_files_are_for_root_alone

Somebody who is root on a node, or has its key: the node is his, and
15  he reads Secrets and ConfigMaps that its pods refer to, by name, while they are bound to it; he also sees, as every node must, all
    Nodes, Services, their endpoints, namespaces, policies, signing requests, and what the authorizer says to questions.
    What he watches when a pod goes he watches for at most an hour more.
        api/test_stolen_node.py::test_no_spelling_of_a_path_leads_to_more
        unit/apiserver/test_watching.py::test_a_nodes_watches_are_not_for_ever
        api/test_stolen_node.py::test_secrets_of_its_own_pods_by_name_only   api/test_stolen_node.py::test_the_secret_goes_with_the_pod
        unit/apiserver/test_nodeauthz.py::test_what_it_may_not   unit/apiserver/test_nodeauthz.py::test_what_is_not_worked_out_is_nobodys
16  he writes its own Node, Lease and pods, and neither taints, labels of kubernetes.io, pod ranges nor addresses of pods or Services.
        api/test_stolen_node.py::test_pods_and_nodes_of_others_stay_as_they_are
        unit/apiserver/admission/test_noderestriction.py::test_pod_ranges_are_not_a_nodes_to_choose
        unit/apiserver/admission/test_noderestriction.py::test_addresses_of_pods_are_of_their_nodes_ranges
        unit/apiserver/admission/test_noderestriction.py::test_addresses_of_nodes_are_none_of_pods_or_services
17  he gets tokens of service accounts of its pods, bound to them, for audiences that they name; with those he may what they may (accepted).
        api/test_stolen_node.py::test_no_new_pods_roles_tokens_or_identities
        unit/apiserver/admission/test_noderestriction.py::test_audiences_of_tokens
18  he gets certificates for its own name and key only, and none that anybody takes for the API server, in whatever spelling; what he has
    of a name that another machine has now is refused.
        api/test_joining.py::test_a_machine_with_a_token_becomes_its_node_and_no_other
        api/test_joining.py::test_no_node_passes_for_the_api_server
        api/test_joining.py::test_a_certificate_that_nobody_pinned_is_worth_nothing
        unit/lib/test_csr.py::test_a_name_that_would_be_taken_for_one_that_is_left_out_is_left_out_too
        unit/lib/test_csr.py::test_of_two_common_names_the_one_that_is_judged_is_the_one_that_counts
        unit/agent/test_join.py::test_another_node_of_the_cluster_is_no_server
19  through the tunnel he has the rights of his node and reaches the API alone: no stream names a host, none leads to another tunnel.
        api/tunnel/test_tunnel.py::test_lists_and_watches_as_the_node_and_nothing_else
        api/tunnel/test_tunnel.py::test_only_a_nodes_certificate_opens_a_tunnel
        api/tunnel/test_tunnel.py::test_what_a_node_says_it_is_does_not_matter
        api/tunnel/test_tunnel.py::test_streams_that_no_side_asked_for_are_refused
        api/tunnel/test_tunnel.py::test_a_tunnel_leads_to_no_other_tunnel
20  he sends the server nowhere: pods of agents are named, not addressed, and the proxies go to no address of the server's host alone. Who
    may use nodes/proxy with a port goes where that Node says it is, from the server, as upstream (accepted: an administrator's right).
        api/tunnel/test_tunnel.py::test_pods_are_reached_by_name_through_their_node
        unit/apiserver/subresources/test_proxy.py::test_addresses_of_this_host_alone_are_not_gone_to
21  he answers what was asked and not the next request of the same client; what a client shows the API never reaches him.
        unit/apiserver/test_relay.py::test_an_answer_that_could_be_read_in_two_ways_is_none
        unit/apiserver/test_relay.py::test_credentials_never_go_on
22  who breaks the protocol, floods or does not read ends his own connection and costs bounded memory (256 streams of 256 KiB, four times);
    what he may create has a rate.
        api/test_threats_strangers.py::test_a_node_has_only_so_many_connections
        unit/lib/mux/test_session.py::test_whatever_a_peer_sends_the_session_works_or_ends_for_one_reason
        unit/lib/mux/test_session.py::test_what_a_peer_makes_us_owe_it_is_bounded
        unit/lib/mux/test_session.py::test_too_many_streams_are_refused_and_the_rest_go_on
        unit/apiserver/admission/test_noderate.py::test_a_flood_is_held_back_and_nobody_elses
        unit/api/test_csr_validation.py::test_a_request_of_unreasonable_size_is_not_even_read
    Accepted, as upstream: he gets traffic of any Service whose labels he gives a mirror pod, and lies about his machine: load balancers
    answer on addresses that he says are his. The way out is to revoke him.

A pod
23  has at a node's port and at the API the rights of its service account; its packets carry its own address, so it is taken for no node.
        multinode/test_threats.py::test_nobody_without_rights_gets_anything_from_the_port_of_a_node
        multinode/test_discovery.py::test_pods_are_not_asked
        multinode/test_overlay_kinds.py::test_only_nodes_may_put_packets_into_the_overlay
    Accepted: with hostNetwork it has the node's ports on loopback, with privileges, hostPath or host namespaces it is root on the node.

Somebody with rights in a namespace
24  approves and signs no certificates, makes nobody an administrator, gives away no more than he has.
        api/test_certificates.py::test_approving_and_signing_need_their_own_rights
        api/test_certificates.py::test_nobody_becomes_an_administrator_by_request
        api/test_auth.py::test_nobody_gives_away_more_than_he_has
    Accepted, as upstream without further admission: who may create pods may create privileged ones; who may create Services may take
    traffic for any address with externalIPs, and a node's port with a hostPort. TLS and Secrets stay what they are.

The server: who is root there is the cluster. Agents do what it says.
"""
