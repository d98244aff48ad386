"""Validation of where a pod may run: affinity, spreading, tolerations (pkg/apis/core/validation/validation.go). Pure."""

from collections.abc import Sequence

from edgekube.api import problems, validate
from edgekube.api.types import Obj
from edgekube.errors import Problem

NOT_POSITIVE = "must be greater than zero"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_WEIGHT = "must be in the range 1-100"
_SET_VALUES = "must be specified when `operator` is 'In' or 'NotIn'"
_NO_VALUES = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
_BOTH = "exists in both matchLabelKeys and labelSelector"


def affinity(found: list[Problem], at: str, given: Obj) -> None:
    """validateAffinity."""
    node = given.get("nodeAffinity")
    if node is not None:
        required = node.get(_REQUIRED)
        if required is not None:
            node_selector(found, f"{at}.nodeAffinity.{_REQUIRED}", required)
        for index, term in enumerate(node.get(_PREFERRED) or ()):
            here = f"{at}.nodeAffinity.{_PREFERRED}[{index}]"
            _weight(found, here, term)
            _node_term(found, f"{here}.preference", term.get("preference") or {}, check_values=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = given.get(kind) or {}
        for index, term in enumerate(pods.get(_REQUIRED) or ()):
            _pod_term(found, f"{at}.{kind}.{_REQUIRED}[{index}]", term)
        for index, term in enumerate(pods.get(_PREFERRED) or ()):
            here = f"{at}.{kind}.{_PREFERRED}[{index}]"
            _weight(found, here, term)
            _pod_term(found, f"{here}.podAffinityTerm", term.get("podAffinityTerm") or {})


def _weight(found: list[Problem], at: str, term: Obj) -> None:
    weight = term.get("weight", 0)
    if not 1 <= weight <= 100:
        found.append(problems.invalid(f"{at}.weight", weight, _WEIGHT))


def node_selector(found: list[Problem], at: str, selector: Obj) -> None:
    """ValidateNodeSelector."""
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        found.append(problems.required(f"{at}.nodeSelectorTerms", "must have at least one node selector term"))
    for index, term in enumerate(terms):
        _node_term(found, f"{at}.nodeSelectorTerms[{index}]", term, check_values=True)


def _node_term(found: list[Problem], at: str, term: Obj, *, check_values: bool) -> None:
    for index, entry in enumerate(term.get("matchExpressions") or ()):
        _node_requirement(found, f"{at}.matchExpressions[{index}]", entry, check_values=check_values)
    for index, entry in enumerate(term.get("matchFields") or ()):
        _node_field(found, f"{at}.matchFields[{index}]", entry)


def _node_requirement(found: list[Problem], at: str, entry: Obj, *, check_values: bool) -> None:
    operator, values, key = entry.get("operator", ""), entry.get("values") or (), entry.get("key", "")
    if operator in ("In", "NotIn"):
        if not values:
            found.append(problems.required(f"{at}.values", _SET_VALUES))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            found.append(problems.forbidden(f"{at}.values", _NO_VALUES))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            found.append(problems.required(f"{at}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        found.append(problems.invalid(f"{at}.operator", operator, "not a valid selector operator"))
    found += validate.each(f"{at}.key", key, validate.qualified(key))
    if check_values:
        for index, value in enumerate(values):
            found += validate.each(f"{at}.values[{index}]", value, validate.label_value(value))


def _node_field(found: list[Problem], at: str, entry: Obj) -> None:
    operator, values, key = entry.get("operator", ""), entry.get("values") or (), entry.get("key", "")
    if operator not in ("In", "NotIn"):
        found.append(problems.invalid(f"{at}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        found.append(problems.required(f"{at}.values", why))
    if key != "metadata.name":
        found.append(problems.invalid(f"{at}.key", key, "not a valid field selector key"))
        return
    for index, value in enumerate(values):
        found += validate.each(f"{at}.values[{index}]", value, validate.subdomain(value))


def _pod_term(found: list[Problem], at: str, term: Obj) -> None:
    selector = term.get("labelSelector")
    found += validate.label_selector(f"{at}.labelSelector", selector)
    found += validate.label_selector(f"{at}.namespaceSelector", term.get("namespaceSelector"))
    for name in term.get("namespaces") or ():
        found += validate.each(f"{at}.namespace", name, validate.label(name))
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    for field, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and selector is None:
            found.append(problems.forbidden(f"{at}.{field}", "must not be specified when labelSelector is not set"))
        elif keys:
            for index, key in enumerate(keys):
                found += validate.each(f"{at}.{field}[{index}]", key, validate.qualified(key))
    if match and selector:
        _repeated_keys(found, at, match, selector)
    for index, key in enumerate(match):
        if key in mismatch:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            found.append(problems.invalid(f"{at}.matchLabelKeys[{index}]", key, why))
    topology = term.get("topologyKey", "")
    if not topology:
        found.append(problems.required(f"{at}.topologyKey", "can not be empty"))
    found += validate.each(f"{at}.topologyKey", topology, validate.qualified(topology))


def _repeated_keys(found: list[Problem], at: str, match: Sequence[str], selector: Obj) -> None:
    """A key of matchLabelKeys has one expression, made for it on creation; a second one is the user's."""
    position = {key: index for index, key in enumerate(match)}
    seen = set(selector.get("matchLabels") or ())
    for expression in selector.get("matchExpressions") or ():
        key = expression.get("key", "")
        if key in position and key in seen:
            found.append(problems.invalid(f"{at}[{position[key]}]", key, _BOTH))
        seen.add(key)


def spread(found: list[Problem], at: str, constraints: Sequence[Obj]) -> None:
    """validateTopologySpreadConstraints."""
    for index, constraint in enumerate(constraints):
        here = f"{at}[{index}]"
        skew, topology, action = constraint.get("maxSkew", 0), constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if skew <= 0:
            found.append(problems.invalid(f"{here}.maxSkew", skew, NOT_POSITIVE))
        if not topology:
            found.append(problems.required(f"{here}.topologyKey", "can not be empty"))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            found.append(problems.not_supported(f"{here}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        for other in constraints[index + 1 :]:
            if (topology, action) == (other.get("topologyKey", ""), other.get("whenUnsatisfiable", "")):
                found.append(problems.duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", f"{{{topology}, {action}}}"))
                break
        _min_domains(found, f"{here}.minDomains", constraint.get("minDomains"), action)
        policies = ((field, constraint.get(field)) for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"))
        allowed = ("Honor", "Ignore")
        found += [problems.not_supported(f"{here}.{field}", given, allowed) for field, given in policies if given not in (None, *allowed)]
        _spread_keys(found, f"{here}.matchLabelKeys", constraint)
        found += validate.label_selector(f"{here}.labelSelector", constraint.get("labelSelector"))


def _min_domains(found: list[Problem], at: str, domains: int | None, action: str) -> None:
    if domains is None:
        return
    if domains <= 0:
        found.append(problems.invalid(at, domains, NOT_POSITIVE))
    if action != "DoNotSchedule":
        why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        found.append(problems.invalid(at, domains, why))


def _spread_keys(found: list[Problem], at: str, constraint: Obj) -> None:
    keys: Sequence[str] = constraint.get("matchLabelKeys") or ()
    if not keys:
        return
    selector: Obj | None = constraint.get("labelSelector")
    if selector is None:
        found.append(problems.forbidden(at, "must not be specified when labelSelector is not set"))
        selector = {}
    for index, key in enumerate(keys):
        found += validate.each(f"{at}[{index}]", key, validate.qualified(key))
    _repeated_keys(found, at, keys, selector)


def tolerations(found: list[Problem], at: str, listed: Sequence[Obj]) -> None:
    """ValidateTolerations."""
    for index, toleration in enumerate(listed):
        here = f"{at}[{index}]"
        key, operator, value = toleration.get("key", ""), toleration.get("operator", ""), toleration.get("value", "")
        effect = toleration.get("effect", "")
        if key:
            found += validate.each(f"{here}.key", key, validate.qualified(key))
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            found.append(problems.invalid(f"{here}.operator", operator, why))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(problems.invalid(f"{here}.effect", effect, why))
        if operator in ("Equal", ""):
            if wrong := validate.label_value(value):
                found.append(problems.invalid(f"{here}.operator", value, ";".join(wrong)))
        elif operator == "Exists":
            if value:
                found.append(problems.invalid(f"{here}.operator", value, "value must be empty when `operator` is 'Exists'"))
        else:
            found.append(problems.not_supported(f"{here}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in _EFFECTS:
            found.append(problems.not_supported(f"{here}.effect", effect, _EFFECTS))
