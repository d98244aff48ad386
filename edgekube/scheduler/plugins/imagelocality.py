"""ImageLocality: nodes that already have the pod's large images are better; an image that few nodes have counts less, against hot spots."""

from collections.abc import Sequence
from typing import Any

from edgekube.scheduler.framework import MAX_SCORE, SKIP, as_they_are
from edgekube.scheduler.snapshot import NodeInfo, PodInfo

_MEGABYTE = 1024 * 1024
_LEAST, _MOST = 23 * _MEGABYTE, 1000 * _MEGABYTE  # per container: below is nothing, above is all


class ImageLocality:
    name = "ImageLocality"
    weight = 1

    def prepare_score(self, pod: PodInfo, nodes: Sequence[NodeInfo], everywhere: Sequence[NodeInfo]) -> Any:
        if len(nodes) < 2:
            return SKIP
        images = [_tagged(image) for image in pod.images]
        return [(image, sum(image in node.images for node in everywhere) / len(everywhere)) for image in images]

    def score(self, pod: PodInfo, node: NodeInfo, prepared: Any) -> float:
        most = _MOST * len(prepared)
        found = sum(int(node.images.get(image, 0) * share) for image, share in prepared)
        return MAX_SCORE * (min(max(found, _LEAST), most) - _LEAST) // (most - _LEAST)

    def normalize(self, scores: Sequence[float], prepared: Any) -> Sequence[int]:
        return as_they_are(scores)


def _tagged(image: str) -> str:
    """The name as nodes report it."""
    return image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"
