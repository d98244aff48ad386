"""The RBAC authorizer: rules in memory that follow the four rbac kinds, answers cached until one of them changes.

Reads roles, rolebindings, clusterroles, clusterrolebindings. A decision costs one dict look-up once it was made before; a change of any
rbac object forgets all answers, which is rare and cheap. Source of the rules: plugin/pkg/auth/authorizer/rbac.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgekube.api import catalog
from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.apiserver.identity import Attributes, Decision, User
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.rules import Rule, compile_rules, describe_subject, subject_key, subject_keys

PRIVILEGED_GROUP = "system:masters"
ALWAYS_ALLOWED_PATHS = frozenset(("/healthz", "/livez", "/readyz"))
_ALLOWED = Decision(True)
_CACHE_LIMIT = 8192


class Grant(NamedTuple):
    """One subject of one binding: which role it gets and how reasons name it."""

    binding: Key
    role_kind: str
    role_name: str
    namespace: str  # where it holds; "" everywhere
    text: str


class _Answer(NamedTuple):
    """What is known for one question except the object's name: allowed for all names, for some, or refused."""

    everything: Decision | None
    named: Mapping[str, Decision]
    refused: Decision


class RbacAuthorizer:
    """Satisfies identity.Authorizer."""

    def __init__(self, objects: Objects) -> None:
        self._roles: dict[tuple[str, Key], tuple[Rule, ...]] = {}
        self._grants: dict[str, dict[tuple[str, str], dict[str, Grant]]] = {}  # namespace -> subject -> binding name -> grant
        self._bound: dict[tuple[str, Key], list[tuple[str, str]]] = {}  # binding -> the subjects it is filed under
        self._cache: dict[tuple[Any, ...], _Answer] = {}
        self._stops: list[Callable[[], None]] = [
            objects.follow(catalog.CLUSTER_ROLE, self._role_changed("ClusterRole")),
            objects.follow(catalog.ROLE, self._role_changed("Role")),
            objects.follow(catalog.CLUSTER_ROLE_BINDING, self._binding_changed("ClusterRoleBinding")),
            objects.follow(catalog.ROLE_BINDING, self._binding_changed("RoleBinding")),
        ]

    def close(self) -> None:
        """Follow no longer."""
        for stop in self._stops:
            stop()

    def authorize(self, attributes: Attributes) -> Decision:
        """Allowed with the binding that allows it as reason, or refused with what went wrong on the way, if anything."""
        user = attributes.user
        if PRIVILEGED_GROUP in user.groups:
            return _ALLOWED
        if not attributes.resource:
            return self._authorize_path(user, attributes.verb, attributes.path)
        question: tuple[Any, ...] = (user.name, tuple(user.groups), attributes.verb, attributes.group, attributes.resource)
        question += (attributes.subresource, attributes.namespace)
        answer = self._cache.get(question)
        if answer is None:
            answer = self._remember(question, self._answer(attributes))
        if answer.everything is not None:
            return answer.everything
        return answer.named.get(attributes.name, answer.refused) if attributes.name else answer.refused

    def rules_for(self, user: User, namespace: str) -> Iterator[Rule]:
        """Every rule that holds for the user in a namespace ("": only cluster-wide ones)."""
        for grant in self._grants_of(user, namespace):
            yield from self._rules_of(grant) or ()

    def role_rules(self, role_kind: str, name: str, namespace: str = "") -> tuple[Rule, ...] | None:
        """The rules of a role; None if there is no such role."""
        return self._roles.get((role_kind, Key(namespace if role_kind == "Role" else "", name)))

    def _authorize_path(self, user: User, verb: str, path: str) -> Decision:
        if path in ALWAYS_ALLOWED_PATHS:
            return _ALLOWED
        question = (user.name, tuple(user.groups), verb, path)
        answer = self._cache.get(question)
        if answer is None:
            found, errors = None, []
            for grant in self._grants_of(user, ""):
                rules = self._rules_of(grant)
                if rules is None:
                    errors.append(_missing(grant))
                elif any(rule.covers_url(verb, path) for rule in rules):
                    found = Decision(True, f"RBAC: allowed by {grant.text}")
                    break
            answer = self._remember(question, _Answer(found, {}, _refusal(errors)))
        return answer.everything or answer.refused

    def _answer(self, attributes: Attributes) -> _Answer:
        named: dict[str, Decision] = {}
        errors: list[str] = []
        for grant in self._grants_of(attributes.user, attributes.namespace):
            rules = self._rules_of(grant)
            if rules is None:
                errors.append(_missing(grant))
                continue
            for rule in rules:
                if not rule.covers_resource(attributes.verb, attributes.group, attributes.resource, attributes.subresource):
                    continue
                decision = Decision(True, f"RBAC: allowed by {grant.text}")
                if not rule.names:
                    return _Answer(decision, named, _refusal(()))
                for name in rule.names:
                    named.setdefault(name, decision)
        return _Answer(None, named, _refusal(errors))

    def _remember(self, question: tuple[Any, ...], answer: _Answer) -> _Answer:
        if len(self._cache) >= _CACHE_LIMIT:
            self._cache.clear()
        self._cache[question] = answer
        return answer

    def _grants_of(self, user: User, namespace: str) -> Iterator[Grant]:
        """Cluster-wide grants first, then those of the namespace: upstream's order decides which reason is shown."""
        keys = subject_keys(user)
        for where in ("", namespace) if namespace else ("",):
            by_subject = self._grants.get(where)
            if by_subject:
                for key in keys:
                    yield from by_subject.get(key, {}).values()

    def _rules_of(self, grant: Grant) -> tuple[Rule, ...] | None:
        return self.role_rules(grant.role_kind, grant.role_name, grant.namespace)

    def _role_changed(self, role_kind: str) -> Callable[[Item | None, Item | None], None]:
        def changed(old: Item | None, new: Item | None) -> None:
            self._cache.clear()
            if new is not None:
                self._roles[role_kind, new.key] = compile_rules(new.decode().get("rules"))
            elif old is not None:
                self._roles.pop((role_kind, old.key), None)

        return changed

    def _binding_changed(self, binding_kind: str) -> Callable[[Item | None, Item | None], None]:
        def changed(old: Item | None, new: Item | None) -> None:
            self._cache.clear()
            if old is not None:
                self._forget(binding_kind, old.key)
            if new is not None:
                self._forget(binding_kind, new.key)
                self._file(binding_kind, new)

        return changed

    def _file(self, binding_kind: str, item: Item) -> None:
        binding = item.decode()
        role, namespace = binding.get("roleRef") or {}, item.key.namespace
        title = f"{item.key.name}/{namespace}" if namespace else item.key.name
        subjects: Sequence[Mapping[str, Any]] = binding.get("subjects") or ()
        filed = []
        for subject in subjects:
            key = subject_key(subject, namespace)
            if key is None:
                continue
            who = describe_subject(subject, namespace)
            text = f'{binding_kind} "{title}" of {role.get("kind", "")} "{role.get("name", "")}" to {who}'
            grant = Grant(item.key, role.get("kind", ""), role.get("name", ""), namespace, text)
            self._grants.setdefault(namespace, {}).setdefault(key, {})[item.key.name] = grant
            filed.append(key)
        self._bound[binding_kind, item.key] = filed

    def _forget(self, binding_kind: str, binding: Key) -> None:
        by_subject = self._grants.get(binding.namespace, {})
        for key in self._bound.pop((binding_kind, binding), ()):
            grants = by_subject.get(key, {})
            grants.pop(binding.name, None)
            if not grants:
                by_subject.pop(key, None)
        if not by_subject:
            self._grants.pop(binding.namespace, None)


def _missing(grant: Grant) -> str:
    resource = "clusterrole" if grant.role_kind == "ClusterRole" else "role"
    return f'{resource}.rbac.authorization.k8s.io "{grant.role_name}" not found'


def _refusal(errors: Sequence[str]) -> Decision:
    unique = list(dict.fromkeys(errors))
    if not unique:
        return Decision(False)
    return Decision(False, f"RBAC: {unique[0]}" if len(unique) == 1 else "RBAC: [" + ", ".join(unique) + "]")
