"""The node's agent: turns the pods bound to this node into running containers and tells the API how they are.

Context: Podman runs containers but knows neither pods nor probes, restarts or back-off the way Kubernetes means them.
Decision: one worker per pod converges it (worker.py draws its states). What to do is decided by pure functions over the spec and what the
runtime shows (`plan`, `status`); what is done is idempotent, so that a kubelet killed between any two lines carries on where it was.
The runtime and the pod network are behind protocols (runtime/protocol.py).

    component   the pods of this node -> workers; adoption and orphans at start      node, lease, eviction   the Node object, its health
    worker      one pod: observe -> plan -> act -> report                            starter, killer         one container up; a pod down
    plan, restarts, status, conditions   decisions, pure                             reporter                statuses to the API, coalesced
    probes, prober, lifecycle   is it alive, is it ready; hooks                      images, credentials     pull policy, back-off, secrets
    env, fields, hostfiles, security, resources   spec -> container settings         volumes/                what pods mount

    static/     pods that come from files of this node                               fence      pods that must end without contact

Consequences: the kubelet keeps nothing about a pod on disk but its volumes and logs; restart counts and readiness survive a restart through
the container labels and the pod's own status. What it needs to start without a server is remembered by the client it is given
(client/shadow.py). Images are as upstream: with pull policy Always a registry must answer; a pod that is to start alone says IfNotPresent.
"""
