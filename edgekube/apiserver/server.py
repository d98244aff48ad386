"""The core: one object that knows the store, who may what, and how each verb works; independent of HTTP and of the HTTP library.

HTTP front -> handle(Request) -> chain of filters -> dispatch -> verb -> registry -> store
in-process LocalClient ----------- authorize ------------------> verb -> registry -> store
"""

from collections.abc import Callable, Mapping, Sequence

from edgekube.api import catalog
from edgekube.api.kind import Kind
from edgekube.api.types import Obj
from edgekube.apiserver.admission.protocol import Admission, Plugin
from edgekube.apiserver.chain import FILTERS, INSIDE, compose
from edgekube.apiserver.identity import Attributes, Authenticator, Authorizer, User
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.registry import Registry
from edgekube.apiserver.request import AnyResponse, Request
from edgekube.apiserver.routes import Health, Routes
from edgekube.apiserver.stream import Hub
from edgekube.apiserver.subresources.finalize import FinalizeSubresource
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.subresources.scale import ScaleSubresource
from edgekube.apiserver.subresources.status import StatusSubresource
from edgekube.apiserver.target import name_in_selector
from edgekube.apiserver.virtual import Virtual
from edgekube.errors import Forbidden
from edgekube.lib.clock import Clock, SystemClock
from edgekube.store.protocol import Store

_OWN_SUBRESOURCES: tuple[Subresource, ...] = (StatusSubresource(), ScaleSubresource(), FinalizeSubresource())


class Server:
    """Handles requests. Everything it needs is handed in; `admission` is in upstream's order."""

    def __init__(
        self,
        *,
        store: Store,
        authenticator: Authenticator,
        authorizer: Authorizer,
        admission: Sequence[Plugin] = (),
        subresources: Sequence[Subresource] = (),
        virtual: Sequence[Virtual] = (),
        clock: Clock | None = None,
    ) -> None:
        self.store = store
        self.registry = Registry(store)
        self.catalog = catalog
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.admission = tuple(admission)
        self.clock: Clock = clock or SystemClock()
        self.hub = Hub(store, self.clock)
        self.health = Health()
        self.on_stop: list[Callable[[], None]] = []  # called when the listeners stop: whoever holds connections open lets go
        self._subresources = (*subresources, *_OWN_SUBRESOURCES)
        self._found: dict[tuple[Kind, str], Subresource | None] = {}
        self._plugins: dict[str, tuple[Plugin, ...]] = {}
        self.virtual: Mapping[Kind, Virtual] = {each.kind: each for each in virtual}
        self._by_path = {(kind.group, kind.version, kind.plural): kind for kind in (*catalog.KINDS, *self.virtual)}
        self.routes = Routes(self)
        self._handle = compose(self, FILTERS)
        self._handle_inside = compose(self, INSIDE)

    @property
    def kinds(self) -> Sequence[Kind]:
        """Every kind that has an address."""
        return tuple(self._by_path.values())

    async def handle(self, request: Request) -> AnyResponse:
        """Answer one request. Never raises ApiError: refusals are answers too."""
        return await self._handle(request)

    async def handle_inside(self, request: Request) -> AnyResponse:
        """The same for callers in the process, whose `user` is already known."""
        return await self._handle_inside(request)

    def find_kind(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def subresource(self, kind: Kind, name: str) -> Subresource | None:
        """The handler of `kind`/`name`, if the kind has that subresource."""
        key = (kind, name)
        if key not in self._found:
            self._found[key] = next((each for each in self._subresources if each.name == name and _belongs(each, kind)), None)
        return self._found[key]

    def authorize(self, user: User, verb: str, op: Operation, *, fields: str = "") -> None:
        """Raises Forbidden in upstream's words. `fields`: the field selector of a list or watch."""
        kind = op.kind
        attributes = Attributes(
            user=user,
            verb=verb,
            resource=kind.plural,
            subresource=op.subresource,
            group=kind.group,
            version=kind.version,
            namespace=op.namespace,
            name=op.name or name_in_selector(fields),
            fields=fields,
        )
        self.require(attributes)

    def require(self, attributes: Attributes) -> None:
        """Raises Forbidden in upstream's words unless the authorizer allows it."""
        decision = self.authorizer.authorize(attributes)
        if not decision.allowed:
            raise refusal(attributes, decision.reason)

    async def mutate(self, op: Operation, operation: str, obj: Obj | None, old: Obj | None) -> Admission:
        """Run the admission that may change `obj`."""
        admission = self._admission(op, operation, obj, old)
        for plugin in self._plugins_for(op.kind):
            await plugin.mutate(admission)
        return admission

    async def admit(self, op: Operation, operation: str, obj: Obj | None, old: Obj | None) -> None:
        """Run the admission that may only refuse."""
        admission = self._admission(op, operation, obj, old)
        for plugin in self._plugins_for(op.kind):
            await plugin.validate(admission)

    def _admission(self, op: Operation, operation: str, obj: Obj | None, old: Obj | None) -> Admission:
        return Admission(
            operation=operation,
            kind=op.kind,
            namespace=op.namespace,
            name=op.name,
            subresource=op.subresource,
            user=op.user,
            obj=obj,
            old=old,
            dry_run=op.dry_run,
            warnings=op.warnings,
            done=op.done,
        )

    def _plugins_for(self, kind: Kind) -> tuple[Plugin, ...]:
        found = self._plugins.get(kind.plural)
        if found is None:
            found = tuple(plugin for plugin in self.admission if not plugin.kinds or kind.plural in plugin.kinds)
            self._plugins[kind.plural] = found
        return found


def refusal(attributes: Attributes, reason: str) -> Forbidden:
    """apiserver/pkg/endpoints/handlers/responsewriters/errors.go."""
    user, verb = attributes.user.name, attributes.verb
    suffix = f": {reason}" if reason else ""
    if not attributes.resource:
        return Forbidden(f'forbidden: User "{user}" cannot {verb} path "{attributes.path}"{suffix}', details={})
    resource = f"{attributes.resource}/{attributes.subresource}" if attributes.subresource else attributes.resource
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    why = f'User "{user}" cannot {verb} resource "{resource}" in API group "{attributes.group}" {where}{suffix}'
    return Forbidden.of(attributes.group, attributes.resource, attributes.name, why)


def _belongs(subresource: Subresource, kind: Kind) -> bool:
    qualified = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    if subresource.resources:
        return qualified in subresource.resources
    if subresource.name == "status":
        return kind.has_status
    if subresource.name == "scale":
        return kind.scale is not None
    return subresource.name in kind.subresources
