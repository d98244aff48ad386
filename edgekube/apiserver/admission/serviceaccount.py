"""ServiceAccount: every pod runs as a service account that exists, and gets its token, the cluster's CA and its namespace as a volume."""

import asyncio
import secrets
from collections.abc import Sequence

from edgekube.api import catalog
from edgekube.api.item import Item
from edgekube.api.types import Obj
from edgekube.apiserver.admission.common import BasePlugin, forbidden, is_write_of
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.objects import Objects
from edgekube.apiserver.tokens import WARN_AFTER_SECONDS

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
MIRROR = "kubernetes.io/config.mirror"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_PATIENCE = 2.0  # a new namespace's default account is made by a controller, a moment after the namespace


class ServiceAccountAdmission(BasePlugin):
    """plugin/pkg/admission/serviceaccount upstream."""

    name = "ServiceAccount"
    kinds = ("pods",)

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def mutate(self, request: Admission) -> None:
        if request.operation != "CREATE" or not is_write_of(request, "pods") or request.obj is None:
            return
        pod = request.obj
        spec = pod.setdefault("spec", {})
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            _check_mirror(request, spec)
            return
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec.get("serviceAccount") or "default"
        spec["serviceAccount"] = spec["serviceAccountName"]
        account = await self._account(request, spec["serviceAccountName"])
        if (account["metadata"].get("annotations") or {}).get(_ENFORCE, "").lower() in ("true", "1", "t"):
            limit_secrets(request, account, spec)
        if should_mount(account, spec):
            mount_token(spec, volume_name=VOLUME_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(5)))
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(reference) for reference in account["imagePullSecrets"]]

    async def _account(self, request: Admission, name: str) -> Obj:
        item = self._objects.get(catalog.SERVICE_ACCOUNT, name, request.namespace)
        if item is None and name == "default":
            item = await self._appears(request.namespace, name)
        if item is None:
            why = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
            raise forbidden(request, why)
        return item.decode()

    async def _appears(self, namespace: str, name: str) -> Item | None:
        """Wait a moment for an account that is about to be made."""
        found: asyncio.Future[Item] = asyncio.get_running_loop().create_future()

        def changed(_old: Item | None, new: Item | None) -> None:
            if new is not None and new.key == (namespace, name) and not found.done():
                found.set_result(new)

        stop = self._objects.follow(catalog.SERVICE_ACCOUNT, changed)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await found
        except TimeoutError:
            return None
        finally:
            stop()


def should_mount(account: Obj, spec: Obj) -> bool:
    """The pod's wish, else the account's, else yes."""
    for source in (spec, account):
        wish = source.get("automountServiceAccountToken")
        if wish is not None:
            return bool(wish)
    return True


def mount_token(spec: Obj, *, volume_name: str) -> None:
    """Mount the token volume in every container that has nothing at its place; add the volume if one needs it."""
    volumes = spec.get("volumes") or []
    existing = next((volume["name"] for volume in volumes if volume.get("name", "").startswith(VOLUME_PREFIX)), "")
    mount = {"name": existing or volume_name, "readOnly": True, "mountPath": MOUNT_PATH}
    needed = False
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            mounts = container.get("volumeMounts") or []
            if any(one.get("mountPath") == MOUNT_PATH for one in mounts):
                continue
            container["volumeMounts"] = [*mounts, dict(mount)]
            needed = True
    if needed and not existing:
        spec["volumes"] = [*volumes, token_volume(volume_name)]


def token_volume(name: str) -> Obj:
    """The projected volume, with all its defaults filled in."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": WARN_AFTER_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": 0o644,
        },
    }


def limit_secrets(request: Admission, account: Obj, spec: Obj) -> None:
    """For accounts that ask for it: only secrets that they list."""
    name = account["metadata"]["name"]
    allowed = {reference.get("name") for reference in account.get("secrets") or ()}
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret and secret not in allowed:
            why = f'volume with secret.secretName="{secret}" is not allowed because service account {name} does not reference that secret'
            raise forbidden(request, why)
    for field, title in (("initContainers", "init container"), ("containers", "container")):
        for container in spec.get(field) or ():
            _limit_environment(request, name, allowed, title, container)
    pull = {reference.get("name") for reference in account.get("imagePullSecrets") or ()}
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if reference.get("name") not in pull:
            why = (
                f'imagePullSecrets[{index}].name="{reference.get("name")}" is not allowed because service account {name} does not reference'
                " that imagePullSecret"
            )
            raise forbidden(request, why)


def _limit_environment(request: Admission, account: str, allowed: set[str | None], title: str, container: Obj) -> None:
    tail = f"is not allowed because service account {account} does not reference that secret"
    where = f"{title} {container.get('name', '')}"
    for variable in container.get("env") or ():
        secret = ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
        if secret and secret not in allowed:
            raise forbidden(request, f'{where} with envVar {variable.get("name")} referencing secret.secretName="{secret}" {tail}')
    for source in container.get("envFrom") or ():
        secret = (source.get("secretRef") or {}).get("name")
        if secret and secret not in allowed:
            raise forbidden(request, f'{where} with envFrom referencing secret.secretName="{secret}" {tail}')


def _check_mirror(request: Admission, spec: Obj) -> None:
    if spec.get("serviceAccountName"):
        raise forbidden(request, "a mirror pod may not reference service accounts")
    volumes: Sequence[Obj] = spec.get("volumes") or ()
    for volume in volumes:
        if volume.get("secret"):
            raise forbidden(request, "a mirror pod may not reference secrets")
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                raise forbidden(request, "a mirror pod may not use ServiceAccountToken volume projections")
