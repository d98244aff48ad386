"""Image archives of every kind that users bring: several images, several platforms, without names, damaged. Made of tests.kit.images."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.kit.images import _config, _layer, _tar

INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Layout:
    """Blobs and descriptors of an OCI layout; `write` makes the archive, `write_folder` the folder."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.top: list[dict[str, Any]] = []

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def image(self, *, architecture: str, variant: str = "", mark: str = "") -> dict[str, Any]:
        """A descriptor of a busybox image whose config says `architecture`; images differ by `mark`."""
        layer = _layer({"etc/mark": mark.encode()} if mark else {})
        config = _config(layer, "", (), ("sh",), (), "") | {"architecture": architecture} | ({"variant": variant} if variant else {})
        layers = [self.blob(gzip.compress(layer, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")]
        parts = {"config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": layers}
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, **parts}).encode(), _MANIFEST)

    def index(self, images: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A descriptor of an index: platform (`arm64`, `arm/v7`) -> image."""
        entries = []
        for text, image in images.items():
            architecture, _, variant = text.partition("/")
            platform = {"os": "linux", "architecture": architecture} | ({"variant": variant} if variant else {})
            entries.append({**image, "platform": platform})
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode(), INDEX)

    def add(self, descriptor: Mapping[str, Any], **annotations: str) -> None:
        """To the top: `ref` and `containerd` are the two annotations that name it."""
        names = {"ref": "org.opencontainers.image.ref.name", "containerd": "io.containerd.image.name"}
        self.top.append({**descriptor, "annotations": {names[key]: value for key, value in annotations.items()}})

    def files(self) -> Sequence[tuple[str, bytes]]:
        index = json.dumps({"schemaVersion": 2, "manifests": self.top}).encode()
        return [*self.blobs.items(), ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)]

    def documents(self) -> dict[str, bytes]:
        """What a look through the archive keeps of it."""
        return {name: data for name, data in self.files() if data[:1] == b"{"}

    def write(self, path: Path) -> Path:
        path.write_bytes(_tar(self.files()))
        return path

    def write_folder(self, folder: Path) -> Path:
        for name, data in self.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder
