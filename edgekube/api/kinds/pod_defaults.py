"""Defaults of pods and pod templates (pkg/apis/core/v1/defaults.go and zz_generated.defaults.go)."""

from typing import Any

from edgekube.api import pods, quantity
from edgekube.api.types import Obj

DEFAULT_MODE = 0o644


def default_pod(pod: Obj) -> None:
    """A Pod."""
    spec = pod.get("spec")
    if isinstance(spec, dict):
        default_pod_spec(spec)
        if spec.get("enableServiceLinks") is None:
            spec["enableServiceLinks"] = True
        if spec.get("hostNetwork"):
            _host_ports(spec)
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            _requests_from_limits(container)
        if spec.get("resources"):
            _pod_resources(spec)


def default_template(template: Obj) -> None:
    """A pod template of a workload."""
    spec = template.setdefault("spec", {})
    default_pod_spec(spec)


def default_pod_spec(spec: Obj) -> None:
    """What pods and templates share."""
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            default_container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def default_container(container: Obj) -> None:
    """One container of any group."""
    image = container.get("image") or ""
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(image)
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    _rounded(container.setdefault("resources", {}))
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            _probe(container[probe])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and hook.get("httpGet") is not None:
            _http(hook["httpGet"])
    for entry in container.get("env") or ():
        field = (entry.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            field.setdefault("apiVersion", "v1")
        resource = (entry.get("valueFrom") or {}).get("resourceFieldRef")
        if resource is not None:
            resource.setdefault("divisor", "0")
        file_key = (entry.get("valueFrom") or {}).get("fileKeyRef")
        if file_key:
            file_key.setdefault("optional", False)


def _pull_policy(image: str) -> str:
    return "Always" if _tag(image) == "latest" else "IfNotPresent"


def _tag(image: str) -> str:
    """The tag an image name resolves to; `latest` without tag and digest."""
    rest, at, _digest = image.rsplit("/", 1)[-1].partition("@")
    _, colon, tag = rest.rpartition(":")
    return tag if colon else "" if at else "latest"


def _probe(probe: Obj) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    if probe.get("httpGet") is not None:
        _http(probe["httpGet"])
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _http(action: Obj) -> None:
    action.setdefault("path", "/")
    action.setdefault("scheme", "HTTP")


def _requests_from_limits(container: Obj) -> None:
    resources = container.get("resources") or {}
    limits: dict[str, Any] = resources.get("limits") or {}
    if limits:
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)


def _rounded(resources: Obj) -> None:
    """Amounts finer than a thousandth are rounded up."""
    for amounts in (resources.get("limits"), resources.get("requests")):
        for name, text in (amounts or {}).items():
            if amounts is not None and text[-1:] in ("n", "u"):
                amounts[name] = quantity.rounded_to_milli(text)


def _pod_resources(spec: Obj) -> None:
    """Pod level: limits of huge pages and requests follow from the containers, then from the pod's own limits, then the reverse."""
    own = spec["resources"]
    _rounded(own)
    inner = {"spec": {name: spec[name] for name in ("containers", "initContainers") if name in spec}}
    asked = pods.requests(inner)
    limits: dict[str, str] = own.get("limits") or {}
    if limits:
        requests = own.setdefault("requests", {})
        for name in ("cpu", "memory"):
            if name in asked and name not in requests:
                requests[name] = quantity.format_milli(asked[name]) if name == "cpu" else quantity.format_bytes(asked[name])
        for name, text in limits.items():
            if name in ("cpu", "memory") or name.startswith("hugepages-"):
                requests.setdefault(name, text)
    if own.get("requests"):
        _pod_limits(spec, own)


def _pod_limits(spec: Obj, own: Obj) -> None:
    """Where every container has a limit, the pod has their sum."""
    bounded = [(c.get("resources") or {}).get("limits") or {} for g in ("containers", "initContainers") for c in spec.get(g) or ()]
    total = pods.limits({"spec": {name: spec[name] for name in ("containers", "initContainers") if name in spec}})
    for name in ("cpu", "memory"):
        if name not in (own.get("limits") or {}) and bounded and all(name in one for one in bounded):
            text = quantity.format_milli(total[name]) if name == "cpu" else quantity.format_bytes(total[name])
            own.setdefault("limits", {})[name] = text


def _host_ports(spec: Obj) -> None:
    for group in ("containers", "initContainers"):
        for container in spec.get(group) or ():
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort")


def _volume(volume: Obj) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for kind in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(kind) is not None:
            volume[kind].setdefault("defaultMode", DEFAULT_MODE)
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        _downward(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        if source.get("podCertificate") is not None:
            source["podCertificate"].setdefault("maxExpirationSeconds", 86400)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            _downward(item)
    _other_sources(volume)


def _other_sources(volume: Obj) -> None:
    if volume.get("image") is not None and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = _pull_policy(volume["image"].get("reference") or "")
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if volume.get("ephemeral") is not None:
        ((volume["ephemeral"].get("volumeClaimTemplate") or {}).get("spec") or {}).setdefault("volumeMode", "Filesystem")
    if volume.get("iscsi") is not None:
        volume["iscsi"].setdefault("iscsiInterface", "default")
    if volume.get("rbd") is not None:
        for name, value in (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")):
            volume["rbd"].setdefault(name, value)


def _downward(item: Obj) -> None:
    if item.get("fieldRef"):
        item["fieldRef"].setdefault("apiVersion", "v1")
    if item.get("resourceFieldRef"):
        item["resourceFieldRef"].setdefault("divisor", "0")
