"""Questions about identity and permission that clients may ask: answered from memory, never stored.

TokenReview, SelfSubjectReview (authentication.k8s.io); SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview,
SelfSubjectRulesReview (authorization.k8s.io). `build` gives the list that the server takes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekube.api import bootstraptokens, problems
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.authn import Authenticator
from edgekube.apiserver.identity import Attributes, User
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.rbac import RbacAuthorizer
from edgekube.apiserver.subresources.binding import Bindings
from edgekube.apiserver.tokens import BadToken
from edgekube.apiserver.virtual import Virtual
from edgekube.errors import BadRequest, Invalid, Unauthorized

if TYPE_CHECKING:
    from edgekube.apiserver.server import Server

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"


def _kind(group: str, name: str, *, namespaced: bool = False) -> Kind:
    schema = f"io.k8s.api.{group.partition('.')[0]}.v1.{name}"
    singular = name.lower()
    return Kind(
        group=group,
        version="v1",
        kind=name,
        plural=f"{singular}s",
        singular=singular,
        namespaced=namespaced,
        schema=schema,
        verbs=("create",),
    )


class TokenReviews:
    """Whose token is this?"""

    kind = _kind(AUTHENTICATION, "TokenReview")

    def __init__(self, authenticator: Authenticator, audience: str) -> None:
        self._authenticator, self._audience = authenticator, audience

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        spec = obj.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        wanted = spec.get("audiences") or [self._audience]
        if bootstraptokens.looks_like(token):
            return _answer(self.kind, obj, await self._of_join_token(token, wanted))
        try:
            claims, user = await self._authenticator.check_token(token, wanted)
        except BadToken as error:
            return _answer(self.kind, obj, {"user": {}, "error": f"[invalid bearer token, {error}]"})
        audiences = [audience for audience in wanted if audience in claims.audiences]
        return _answer(self.kind, obj, {"authenticated": True, "user": user_info(user), "audiences": audiences})

    async def _of_join_token(self, token: str, wanted: Sequence[str]) -> Obj:
        """It is for the API itself and nothing else."""
        try:
            user = await self._authenticator.authenticate(f"Bearer {token}", None)
        except Unauthorized as error:
            return {"user": {}, "error": f"[invalid bearer token, {error.message}]"}
        if user is None or self._audience not in wanted:
            return {"user": {}, "error": "[invalid bearer token, meant for another audience]"}
        return {"authenticated": True, "user": user_info(user), "audiences": [self._audience]}


class SelfSubjectReviews:
    """Who am I?"""

    kind = _kind(AUTHENTICATION, "SelfSubjectReview")

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        return _answer(self.kind, obj, {"userInfo": user_info(op.user)})


class SubjectAccessReviews:
    """May somebody do this?"""

    kind = _kind(AUTHORIZATION, "SubjectAccessReview")

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        spec = obj.get("spec") or {}
        found = check_attributes(spec)
        if not spec.get("user") and not spec.get("groups"):
            found.append(problems.invalid("spec.user", spec.get("user") or "", "at least one of user or group must be specified"))
        if found:
            raise Invalid.of(AUTHORIZATION, self.kind.kind, "", found)
        return _answer(self.kind, obj, decide(server, _subject(spec), spec))


class LocalSubjectAccessReviews:
    """May somebody do this in this namespace?"""

    kind = _kind(AUTHORIZATION, "LocalSubjectAccessReview", namespaced=True)

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        spec = obj.get("spec") or {}
        resource = spec.get("resourceAttributes") or {}
        found = check_attributes(spec)
        if spec.get("nonResourceAttributes") is not None:
            found = [problems.invalid("spec.nonResourceAttributes", spec["nonResourceAttributes"], "disallowed on this kind of request")]
        if not spec.get("user") and not spec.get("groups"):
            found.append(problems.invalid("spec.user", spec.get("user") or "", "at least one of user or group must be specified"))
        if not found and resource.get("namespace") != op.namespace:
            why = "must match metadata.namespace"
            found.append(problems.invalid("spec.resourceAttributes.namespace", resource.get("namespace") or "", why))
        if found:
            raise Invalid.of(AUTHORIZATION, self.kind.kind, "", found)
        return _answer(self.kind, obj, decide(server, _subject(spec), spec))


class SelfSubjectAccessReviews:
    """May I do this?"""

    kind = _kind(AUTHORIZATION, "SelfSubjectAccessReview")

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        spec = obj.get("spec") or {}
        if found := check_attributes(spec):
            raise Invalid.of(AUTHORIZATION, self.kind.kind, "", found)
        return _answer(self.kind, obj, decide(server, op.user, spec))


class SelfSubjectRulesReviews:
    """What may I do in this namespace?"""

    kind = _kind(AUTHORIZATION, "SelfSubjectRulesReview")

    def __init__(self, authorizer: RbacAuthorizer) -> None:
        self._authorizer = authorizer

    async def create(self, server: "Server", op: Operation, obj: Obj) -> Obj:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise BadRequest("no namespace on request")
        rules = [rule.to_json() for rule in self._authorizer.rules_for(op.user, namespace)]
        status = {
            "resourceRules": [rule for rule in rules if "resources" in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return _answer(self.kind, obj, status)


def build(*, authenticator: Authenticator, authorizer: RbacAuthorizer, audience: str) -> Sequence[Virtual]:
    """All kinds that are answered and not stored, `bindings` among them."""
    return (
        TokenReviews(authenticator, audience),
        SelfSubjectReviews(),
        SubjectAccessReviews(),
        LocalSubjectAccessReviews(),
        SelfSubjectAccessReviews(),
        SelfSubjectRulesReviews(authorizer),
        Bindings(),
    )


def user_info(user: User) -> Obj:
    """authentication.k8s.io/v1 UserInfo."""
    info: Obj = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def check_attributes(spec: Mapping[str, Any]) -> list[Any]:
    """Exactly one kind of question."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and path is not None:
        why = "cannot be specified in combination with resourceAttributes"
        return [problems.invalid("spec.nonResourceAttributes", path, why)]
    if resource is None and path is None:
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        return [problems.invalid("spec.resourceAttributes", resource, why)]
    return []


def decide(server: "Server", user: User, spec: Mapping[str, Any]) -> Obj:
    """SubjectAccessReviewStatus."""
    resource, path = spec.get("resourceAttributes") or {}, spec.get("nonResourceAttributes") or {}
    attributes = Attributes(
        user=user,
        verb=str((resource or path).get("verb") or ""),
        resource=str(resource.get("resource") or ("" if path else "*")),
        subresource=str(resource.get("subresource") or ""),
        group=str(resource.get("group") or ""),
        version=str(resource.get("version") or ""),
        namespace=str(resource.get("namespace") or ""),
        name=str(resource.get("name") or ""),
        path=str(path.get("path") or ""),
        fields=_fields(resource.get("fieldSelector") or {}),
    )
    decision = server.authorizer.authorize(attributes)
    status: Obj = {"allowed": decision.allowed}
    return status | ({"reason": decision.reason} if decision.reason else {})


def _fields(selector: Mapping[str, Any]) -> str:
    """The field selector of the question, as a client would write it: raw, or as requirements of one value each."""
    terms = [
        f"{each.get('key', '')}={each['values'][0]}"
        for each in selector.get("requirements") or ()
        if each.get("operator") == "In" and len(each.get("values") or ()) == 1
    ]
    return str(selector.get("rawSelector") or ",".join(terms))


def _subject(spec: Mapping[str, Any]) -> User:
    return User(spec.get("user") or "", tuple(spec.get("groups") or ()), uid=spec.get("uid") or "", extra=spec.get("extra") or {})


def _answer(kind: Kind, obj: Obj, status: Obj) -> Obj:
    metadata = {"creationTimestamp": None} | (obj.get("metadata") or {})
    answer: Obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    if "spec" in obj:
        answer["spec"] = obj["spec"]
    return answer | {"status": status}
