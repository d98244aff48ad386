"""The default RBAC policy of Kubernetes v1.36 as data (upstream: plugin/pkg/auth/authorizer/rbac/bootstrappolicy).

A rule is one line: `verbs : groups : resources` or `verbs : groups : resources : names`, or `verbs : url : paths`. The core group is
written `core`. READ, WRITE and ALL stand for the usual sets of verbs; EVENTS is the rule to write Events.
"""

from edgekube.api.bootstraptokens import NODE_GROUP

READ = "get list watch"
WRITE = "create update patch delete deletecollection"
ALL = f"{READ} {WRITE}"
EVENTS = "create update patch : core events.k8s.io : events"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_SERVE = "create : authentication.k8s.io : tokenreviews", "create : authorization.k8s.io : subjectaccessreviews"
_APPROVE = "approve : certificates.k8s.io : signers"

AGGREGATED = {"admin": "admin", "edit": "edit", "view": "view"}
"""ClusterRoles whose rules are collected from those labelled aggregate-to-X."""

AGGREGATE_INTO = {
    "edit": "admin",
    "view": "edit",
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
}

NODE_RULES = (
    "create : authentication.k8s.io : tokenreviews",
    "create : authorization.k8s.io : subjectaccessreviews localsubjectaccessreviews",
    f"{READ} : core : services",
    "create get list watch : core : nodes",
    "update patch : core : nodes/status",
    "update patch : core : nodes",
    "create update patch : core : events",
    f"{READ} : core : pods",
    "create delete : core : pods",
    "update patch : core : pods/status",
    "create : core : pods/eviction",
    f"{READ} : core : secrets configmaps",
    "get : core : persistentvolumeclaims persistentvolumes",
    "get : core : endpoints",
    "create get list watch : certificates.k8s.io : certificatesigningrequests",
    "get create update patch delete : coordination.k8s.io : leases",
    "get : storage.k8s.io : volumeattachments",
    "create : core : serviceaccounts/token",
    "get update patch : core : persistentvolumeclaims/status",
    f"{READ} : storage.k8s.io : csidrivers",
    "get create update patch delete : storage.k8s.io : csinodes",
    f"{READ} : node.k8s.io : runtimeclasses",
    f"{READ} : resource.k8s.io : resourceclaims",
    f"{READ} deletecollection : resource.k8s.io : resourceslices",
    "get list watch create : certificates.k8s.io : podcertificaterequests",
    f"{READ} : certificates.k8s.io : clustertrustbundles",
)

CLUSTER_ROLES: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("* : * : *", "* : url : *"),
    "system:monitoring": ("get : url : /metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/*",),
    "system:discovery": ("get : url : /livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",),
    "system:basic-user": (
        "create : authorization.k8s.io : selfsubjectaccessreviews selfsubjectrulesreviews",
        "create : authentication.k8s.io : selfsubjectreviews",
    ),
    "system:public-info-viewer": ("get : url : /livez /readyz /healthz /version /version/",),
    "admin": (),
    "edit": (),
    "view": (),
    "system:aggregate-to-admin": (
        "create : authorization.k8s.io : localsubjectaccessreviews",
        f"{ALL} : rbac.authorization.k8s.io : roles rolebindings",
    ),
    "system:aggregate-to-edit": (
        f"{READ} : core : pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy",
        "impersonate : core : serviceaccounts",
        f"{WRITE} : core : pods pods/attach pods/proxy pods/exec pods/portforward",
        "create : core : pods/eviction",
        f"{WRITE} : core : replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy"
        " persistentvolumeclaims configmaps secrets events",
        "create : core : serviceaccounts/token",
        f"{WRITE} : apps : statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets"
        " replicasets/scale",
        f"{WRITE} : autoscaling : horizontalpodautoscalers",
        f"{WRITE} : batch : jobs cronjobs",
        f"{WRITE} : extensions : daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale"
        " replicationcontrollers/scale networkpolicies",
        f"{WRITE} : policy : poddisruptionbudgets",
        f"{WRITE} : networking.k8s.io : networkpolicies ingresses",
        f"{ALL} : coordination.k8s.io : leases",
        f"{WRITE} : resource.k8s.io : resourceclaims resourceclaimtemplates",
    ),
    "system:aggregate-to-view": (
        f"{READ} : core : pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints"
        " persistentvolumeclaims persistentvolumeclaims/status configmaps",
        f"{READ} : core : limitranges resourcequotas bindings events pods/status resourcequotas/status namespaces/status"
        " replicationcontrollers/status pods/log",
        f"{READ} : core : namespaces",
        f"{READ} : discovery.k8s.io : endpointslices",
        f"{READ} : apps : controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments"
        " deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
        f"{READ} : autoscaling : horizontalpodautoscalers horizontalpodautoscalers/status",
        f"{READ} : batch : jobs jobs/status cronjobs cronjobs/status",
        f"{READ} : extensions : daemonsets daemonsets/status deployments deployments/status deployments/scale ingresses ingresses/status"
        " replicasets replicasets/status replicasets/scale replicationcontrollers/scale networkpolicies",
        f"{READ} : policy : poddisruptionbudgets poddisruptionbudgets/status",
        f"{READ} : networking.k8s.io : networkpolicies ingresses ingresses/status",
        f"{READ} : resource.k8s.io : resourceclaims resourceclaims/status resourceclaimtemplates",
    ),
    "system:heapster": (f"{READ} : core : events pods nodes namespaces", f"{READ} : extensions : deployments"),
    "system:node": NODE_RULES,
    "system:node-problem-detector": ("get : core : nodes", "patch : core : nodes/status", EVENTS),
    "system:kubelet-api-admin": (
        f"{READ} : core : nodes",
        "proxy : core : nodes",
        "* : core : nodes/proxy nodes/metrics nodes/stats nodes/log nodes/pods nodes/healthz nodes/configz",
    ),
    "system:node-bootstrapper": ("create get list watch : certificates.k8s.io : certificatesigningrequests",),
    "system:auth-delegator": _SERVE,
    "system:kube-aggregator": (f"{READ} : core : services endpoints",),
    "system:kube-controller-manager": (
        EVENTS,
        "create : coordination.k8s.io : leases",
        "get update : coordination.k8s.io : leases : kube-controller-manager",
        "create : core : secrets serviceaccounts",
        "delete : core : secrets",
        "get : core : namespaces secrets serviceaccounts configmaps",
        "update : core : secrets serviceaccounts",
        *_SERVE,
        "list watch : * : *",
        "create : core : serviceaccounts/token",
    ),
    "edgekube:public": ("get : url : /cacerts", "post : url : /v1-edgekube/renew"),
    "edgekube:node-certificates": (f"{_APPROVE} : kubernetes.io/kubelet-serving", "get : core : nodes"),
    "edgekube:certificatesigningrequests:selfnodeserver": ("create : certificates.k8s.io : certificatesigningrequests/selfnodeserver",),
    "edgekube:node-connector": ("get : url : /v1-edgekube/connect",),
    "edgekube:node-dns": (f"{READ} : core : namespaces",),
    "edgekube:node-policies": (f"{READ} : networking.edgekube.io : policyslices",),
    "system:kube-dns": ("list watch : core : endpoints services",),
    "system:persistent-volume-provisioner": (
        "get list watch create delete : core : persistentvolumes",
        "get list watch update : core : persistentvolumeclaims",
        f"{READ} : storage.k8s.io : storageclasses",
        "watch : core : events",
        EVENTS,
    ),
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
        "create : certificates.k8s.io : certificatesigningrequests/nodeclient",
    ),
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
        "create : certificates.k8s.io : certificatesigningrequests/selfnodeclient",
    ),
    "system:volume-scheduler": (
        f"{READ} update patch : core : persistentvolumes",
        f"{READ} : storage.k8s.io : storageclasses",
        f"{READ} update patch : core : persistentvolumeclaims",
    ),
    "system:certificates.k8s.io:legacy-unknown-approver": (f"{_APPROVE} : kubernetes.io/legacy-unknown",),
    "system:certificates.k8s.io:kubelet-serving-approver": (f"{_APPROVE} : kubernetes.io/kubelet-serving",),
    "system:certificates.k8s.io:kube-apiserver-client-approver": (f"{_APPROVE} : kubernetes.io/kube-apiserver-client",),
    "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver": (f"{_APPROVE} : kubernetes.io/kube-apiserver-client-kubelet",),
    "system:service-account-issuer-discovery": ("get : url : /.well-known/openid-configuration /openid/v1/jwks",),
    "system:cluster-trust-bundle-discovery": (f"{READ} : certificates.k8s.io : clustertrustbundles",),
    "system:node-proxier": (
        "list watch : core : services endpoints",
        f"{READ} : core : nodes",
        EVENTS,
        "list watch : discovery.k8s.io : endpointslices",
        "list watch : networking.k8s.io : servicecidrs",
    ),
    "system:kube-scheduler": (
        EVENTS,
        "create : coordination.k8s.io : leases",
        f"{READ} update : coordination.k8s.io : leases : kube-scheduler",
        f"{ALL} : coordination.k8s.io : leasecandidates",
        f"{READ} : core : nodes",
        "get list watch delete : core : pods",
        "create : core : pods/binding bindings",
        "patch update : core : pods/status",
        f"{READ} : core : services replicationcontrollers",
        f"{READ} : apps extensions : replicasets",
        f"{READ} : apps : statefulsets",
        f"{READ} : policy : poddisruptionbudgets",
        f"{READ} : core : persistentvolumeclaims persistentvolumes",
        *_SERVE,
        f"{READ} : storage.k8s.io : csinodes",
        f"{READ} : core : namespaces",
        f"{READ} : storage.k8s.io : csidrivers",
        f"{READ} : storage.k8s.io : csistoragecapacities",
        f"{READ} : storage.k8s.io : volumeattachments",
        f"{READ} : resource.k8s.io : deviceclasses",
        f"{READ} update patch : resource.k8s.io : resourceclaims",
        "update patch : resource.k8s.io : resourceclaims/status",
        f"{READ} : resource.k8s.io : resourceslices",
        f"{READ} : scheduling.k8s.io : priorityclasses",
    ),
}

CLUSTER_ROLE_BINDINGS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("cluster-admin", "cluster-admin", ("Group system:masters",)),
    ("system:monitoring", "system:monitoring", ("Group system:monitoring",)),
    ("system:discovery", "system:discovery", ("Group system:authenticated",)),
    ("system:basic-user", "system:basic-user", ("Group system:authenticated",)),
    ("system:public-info-viewer", "system:public-info-viewer", ("Group system:authenticated", "Group system:unauthenticated")),
    ("system:node-proxier", "system:node-proxier", ("User system:kube-proxy",)),
    ("system:kube-controller-manager", "system:kube-controller-manager", ("User system:kube-controller-manager",)),
    ("system:kube-dns", "system:kube-dns", ("ServiceAccount kube-system/kube-dns",)),
    ("system:kube-scheduler", "system:kube-scheduler", ("User system:kube-scheduler",)),
    ("system:volume-scheduler", "system:volume-scheduler", ("User system:kube-scheduler",)),
    ("system:node", "system:node", ()),  # nobody: nodes are the Node authorizer's, which reads the same rules
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", ("Group system:serviceaccounts",)),
    ("system:cluster-trust-bundle-discovery", "system:cluster-trust-bundle-discovery", ("Group system:serviceaccounts",)),
    # Ours: proxy, DNS and policies run inside the node's own process and use its identity.
    ("edgekube:node-proxier", "system:node-proxier", ("Group system:nodes",)),
    ("edgekube:node-dns", "edgekube:node-dns", ("Group system:nodes",)),
    # As kubeadm binds them: who joins with a token may ask, and what nodes ask for themselves is granted.
    ("edgekube:node-bootstrapper", "system:node-bootstrapper", (f"Group {NODE_GROUP}",)),
    (
        "edgekube:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        (f"Group {NODE_GROUP}",),
    ),
    (
        "edgekube:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        ("Group system:nodes",),
    ),
    ("edgekube:node-autoapprove-serving", "edgekube:certificatesigningrequests:selfnodeserver", ("Group system:nodes",)),
    ("edgekube:node-certificates", "edgekube:node-certificates", ("ServiceAccount kube-system/certificate-controller",)),
    ("edgekube:node-connector", "edgekube:node-connector", ("Group system:nodes",)),
    # What a machine needs before it has credentials: the authority to compare with its token, and renewal by proof of its key.
    ("edgekube:public", "edgekube:public", ("Group system:authenticated", "Group system:unauthenticated")),
    ("edgekube:node-policies", "edgekube:node-policies", ("Group system:nodes",)),
)

_LEADER = "system::leader-locking-"
NAMESPACE_ROLES: dict[tuple[str, str], tuple[str, ...]] = {
    ("kube-system", "extension-apiserver-authentication-reader"): (f"{READ} : core : configmaps : extension-apiserver-authentication",),
    # Ours: agents run with the cluster's ranges, domain and network.
    ("kube-system", "edgekube:cluster-settings"): (f"{READ} : core : configmaps : edgekube-cluster",),
    ("kube-system", "system:controller:bootstrap-signer"): (f"{READ} : core : secrets",),
    ("kube-system", "system:controller:cloud-provider"): ("create get list watch : core : configmaps",),
    ("kube-system", "edgekube:node-identities"): (f"{READ} create update : core : secrets",),
    ("kube-system", "system:controller:token-cleaner"): ("get list watch delete : core : secrets", EVENTS),
    ("kube-system", f"{_LEADER}kube-controller-manager"): (
        "watch : core : configmaps",
        "get update : core : configmaps : kube-controller-manager",
    ),
    ("kube-system", f"{_LEADER}kube-scheduler"): ("watch : core : configmaps", "get update : core : configmaps : kube-scheduler"),
    ("kube-public", "system:controller:bootstrap-signer"): (
        f"{READ} : core : configmaps",
        "update : core : configmaps : cluster-info",
        EVENTS,
    ),
}

NAMESPACE_ROLE_BINDINGS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("kube-system", "edgekube:cluster-settings", "edgekube:cluster-settings", ("Group system:nodes",)),
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        ("User system:kube-controller-manager", "User system:kube-scheduler"),
    ),
    (
        "kube-system",
        f"{_LEADER}kube-controller-manager",
        f"{_LEADER}kube-controller-manager",
        ("User system:kube-controller-manager", "ServiceAccount kube-system/kube-controller-manager"),
    ),
    (
        "kube-system",
        f"{_LEADER}kube-scheduler",
        f"{_LEADER}kube-scheduler",
        ("User system:kube-scheduler", "ServiceAccount kube-system/kube-scheduler"),
    ),
    ("kube-system", "edgekube:node-identities", "edgekube:node-identities", ("ServiceAccount kube-system/certificate-controller",)),
    *(
        (namespace, f"system:controller:{name}", f"system:controller:{name}", (f"ServiceAccount kube-system/{name}",))
        for namespace, name in (
            ("kube-system", "bootstrap-signer"),
            ("kube-system", "cloud-provider"),
            ("kube-system", "token-cleaner"),
            ("kube-public", "bootstrap-signer"),
        )
    ),
)
