"""Which form of an answer the client wants: JSON, YAML or protobuf, the object itself, a Table, or its metadata only.

Source of the rules: k8s.io/apiserver/pkg/endpoints/handlers/negotiation. Custom resources have no protobuf messages (but their metadata
has), Tables neither. CBOR is not offered: clients that also accept JSON get that, others 406.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from edgekube.errors import NotAcceptable, UnsupportedMediaType

JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
BODIES = (JSON, YAML, PROTOBUF)
WATCH_TYPES = {JSON: JSON, YAML: f"{YAML};stream=watch", PROTOBUF: f"{PROTOBUF};stream=watch"}
_OFFERED = {JSON: JSON, "application/*": JSON, "*/*": JSON, "": JSON, YAML: YAML, "text/yaml": YAML, PROTOBUF: PROTOBUF}


class Shape(Enum):
    OBJECT = "object"
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Output:
    """`version` is that of meta.k8s.io for tables and partial objects; `include` what table rows carry: Metadata, Object, None."""

    media: str = JSON
    shape: Shape = Shape.OBJECT
    version: str = "v1"
    include: str = "Metadata"
    pretty: bool = False

    @property
    def group_version(self) -> str:
        return f"meta.k8s.io/{self.version}"

    @property
    def plain(self) -> bool:
        """The stored bytes are the answer."""
        return self.media == JSON and self.shape is Shape.OBJECT and not self.pretty


PLAIN = Output()
_SHAPES = {"Table": Shape.TABLE, "PartialObjectMetadata": Shape.PARTIAL, "PartialObjectMetadataList": Shape.PARTIAL}


@lru_cache(maxsize=256)
def negotiate(accept: str, *, transform: bool = True, protobuf: bool = True) -> Output:
    """The first form in `accept` that the server has; `transform` says whether tables and partial objects are possible here,
    `protobuf` whether the kind has a message. Raises NotAcceptable."""
    if not accept:
        return PLAIN
    clauses = sorted((_clause(text) for text in accept.split(",")), key=lambda clause: -clause[2])
    for media, parameters, _ in clauses:
        offered = _OFFERED.get(media)
        if offered is None:
            continue
        wanted = parameters.get("as", "")
        if not wanted:
            if offered == PROTOBUF and not protobuf:
                continue
            return Output(media=offered)
        shape = _SHAPES.get(wanted)
        if shape is None or not transform or parameters.get("g", "") != "meta.k8s.io" or parameters.get("v", "") not in ("v1", "v1beta1"):
            continue
        if shape is Shape.TABLE and offered == PROTOBUF:
            continue
        return Output(media=offered, shape=shape, version=parameters["v"])
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(BODIES if protobuf else BODIES[:2])}")


def _clause(text: str) -> tuple[str, dict[str, str], float]:
    media, *rest = text.split(";")
    parameters = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in rest)}
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    return media.strip().lower(), parameters, quality


def body_media(content_type: str, allowed: tuple[str, ...] = BODIES) -> str:
    """The media type of a request's body; none given means JSON. Raises UnsupportedMediaType."""
    media = content_type.partition(";")[0].strip().lower() or JSON
    if media not in allowed:
        names = ", ".join(allowed)
        text = f"the body of the request was in an unknown format - accepted media types include: {names}"
        raise UnsupportedMediaType(text)
    return media


def object_media(content_type: str, *, protobuf: bool) -> str:
    """The same for an object of a kind that has a protobuf message or has none."""
    return body_media(content_type, BODIES if protobuf else BODIES[:2])
