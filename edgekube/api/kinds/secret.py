"""Secret: `stringData` is taken into `data`, the type is Opaque unless said (pkg/apis/core/v1/conversion.go, defaults.go).

The type says which entries there must be (pkg/apis/core/validation ValidateSecret).
"""

import base64
from collections.abc import Iterator, Mapping

import orjson

from edgekube.api import problems
from edgekube.api import validate as rules
from edgekube.api.kind import Column, Kind
from edgekube.api.kinds import bags
from edgekube.api.kinds.printing import AGE, NAME
from edgekube.api.types import Obj
from edgekube.errors import Problem

_ACCOUNT = "kubernetes.io/service-account.name"
_HIDDEN = "<secret contents redacted>"
_DOCKER = {"kubernetes.io/dockercfg": ".dockercfg", "kubernetes.io/dockerconfigjson": ".dockerconfigjson"}
_GO_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array"}


def default(obj: Obj) -> None:
    plain = obj.pop("stringData", None)
    if isinstance(plain, dict) and plain:
        data = obj["data"] = dict(obj.get("data") or {})
        for key, text in plain.items():
            data[key] = base64.b64encode(str(text).encode()).decode()
    if not obj.get("type"):
        obj["type"] = "Opaque"


def validate(new: Obj, old: Obj | None) -> Iterator[Problem]:
    if old is not None:
        yield from rules.immutable("type", new.get("type", ""), old.get("type", ""))
        yield from bags.frozen(new, old, "data")
    data = new.get("data") or {}
    yield from bags.keys("data", data)
    if bags.decoded_size(data) > bags.LARGEST:
        yield problems.too_long("data", bags.LARGEST)
    yield from _required(new, data)


def _required(secret: Obj, data: Mapping[str, str]) -> Iterator[Problem]:
    kind = secret.get("type") or ""
    if kind == "kubernetes.io/service-account-token" and not (secret["metadata"].get("annotations") or {}).get(_ACCOUNT):
        yield problems.required(f"metadata.annotations[{_ACCOUNT}]")
    elif kind in _DOCKER:
        yield from _docker(_DOCKER[kind], data)
    elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        yield problems.required("data[username]")
        yield problems.required("data[password]")
    elif kind == "kubernetes.io/ssh-auth" and not data.get("ssh-privatekey"):
        yield problems.required("data[ssh-privatekey]")
    elif kind == "kubernetes.io/tls":
        yield from (problems.required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data)


def _docker(key: str, data: Mapping[str, str]) -> Iterator[Problem]:
    if key not in data:
        yield problems.required(f"data[{key}]")
    elif why := _json_problem(base64.b64decode(data[key])):
        yield problems.invalid(f"data[{key}]", _HIDDEN, why)


def _json_problem(text: bytes) -> str:
    """Why Go would not read `text` into a map, as it says it; the place of a mistake inside is not told (the content is secret)."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        rest = text.lstrip(b" \t\r\n")
        if not rest or (rest[:1] in b'{["' and rest[-1:] not in b'}]"'):
            return "unexpected end of JSON input"
        return f"invalid character {chr(rest[0])!r} looking for beginning of value"
    if isinstance(found, dict) or found is None:
        return ""
    return f"json: cannot unmarshal {_GO_NAMES[type(found)]} into Go value of type map[string]interface {{}}"


SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    default=default,
    validate=validate,
    selectable={"type": lambda o: str(o.get("type") or "")},
    columns=(
        NAME,
        Column("Type", lambda o, _: o.get("type", ""), description="Used to facilitate programmatic handling of secret data."),
        Column("Data", lambda o, _: len(o.get("data") or ()), description="Number of entries."),
        AGE,
    ),
)
