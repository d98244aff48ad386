"""What roles and bindings may say (pkg/apis/rbac/validation). Pure. Names are path segments, as the metadata rules know."""

from collections.abc import Iterator, Sequence

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = ("ServiceAccount", "User", "Group")


def check_role(new: Obj, _old: Obj | None) -> Iterator[Problem]:
    yield from _rules(new, namespaced=True)


def check_cluster_role(new: Obj, _old: Obj | None) -> Iterator[Problem]:
    yield from _rules(new, namespaced=False)
    aggregation = new.get("aggregationRule")
    if aggregation is None:
        return
    at, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or ()
    if not selectors:
        yield problems.required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil")
    for index, selector in enumerate(selectors):
        yield from validate.label_selector(f"{at}[{index}]", selector)


def _rules(role: Obj, *, namespaced: bool) -> Iterator[Problem]:
    for index, rule in enumerate(role.get("rules") or ()):
        at, urls = f"rules[{index}]", rule.get("nonResourceURLs")
        if not rule.get("verbs"):
            yield problems.required(f"{at}.verbs", "verbs must contain at least one value")
        if urls:
            if namespaced:
                yield problems.invalid(f"{at}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs")
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                yield problems.invalid(f"{at}.nonResourceURLs", urls, why)
            continue
        if not rule.get("apiGroups"):
            yield problems.required(f"{at}.apiGroups", "resource rules must supply at least one api group")
        if not rule.get("resources"):
            yield problems.required(f"{at}.resources", "resource rules must supply at least one resource")


def check_role_binding(new: Obj, old: Obj | None) -> Iterator[Problem]:
    yield from _binding(new, old, ("Role", "ClusterRole"), namespaced=True)


def check_cluster_role_binding(new: Obj, old: Obj | None) -> Iterator[Problem]:
    yield from _binding(new, old, ("ClusterRole",), namespaced=False)


def _binding(new: Obj, old: Obj | None, kinds: Sequence[str], *, namespaced: bool) -> Iterator[Problem]:
    group, kind, name = _reference(new)
    if group != GROUP:
        yield problems.not_supported("roleRef.apiGroup", group, (GROUP,))
    if kind not in kinds:
        yield problems.not_supported("roleRef.kind", kind, kinds)
    if name:
        yield from validate.each("roleRef.name", name, validate.path_segment(name))
    else:
        yield problems.required("roleRef.name")
    for index, subject in enumerate(new.get("subjects") or ()):
        yield from _subject(f"subjects[{index}]", subject, namespaced=namespaced)
    if old is not None and _reference(old) != (group, kind, name):
        yield problems.invalid("roleRef", {"APIGroup": group, "Kind": kind, "Name": name}, "cannot change roleRef")


def _reference(binding: Obj) -> tuple[str, str, str]:
    found = binding.get("roleRef") or {}
    return found.get("apiGroup") or "", found.get("kind") or "", found.get("name") or ""


def _subject(at: str, subject: Obj, *, namespaced: bool) -> Iterator[Problem]:
    kind, name, group = subject.get("kind") or "", subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        yield problems.required(f"{at}.name")
    if kind == "ServiceAccount":
        if name:
            yield from validate.each(f"{at}.name", name, validate.subdomain(name))
        if group:
            yield problems.not_supported(f"{at}.apiGroup", group, ("",))
        if not namespaced and not subject.get("namespace"):
            yield problems.required(f"{at}.namespace")
    elif kind in ("User", "Group"):
        if not name:
            yield problems.invalid(f"{at}.name", name, f"{kind.lower()} name cannot be empty")
        if group != GROUP:
            yield problems.not_supported(f"{at}.apiGroup", group, (GROUP,))
    else:
        yield problems.not_supported(f"{at}.kind", kind, _SUBJECTS)
