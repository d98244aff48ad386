"""Events about pods and their containers, in upstream's words, through the recorder."""

from edgekube.api.catalog import NODE, POD
from edgekube.api.types import Obj
from edgekube.client.recorder import NORMAL, WARNING, Recorder, reference
from edgekube.kubelet import podspec


class PodEvents:
    """A thin door: what is about a container names it in the reference's fieldPath."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def pod(self, pod: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.event(reference(pod, POD), WARNING if warning else NORMAL, reason, message)

    def node(self, node: Obj, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.event(reference(node, NODE), WARNING if warning else NORMAL, reason, message)

    def container(self, pod: Obj, name: str, reason: str, message: str, *, warning: bool = False) -> None:
        self._recorder.event(reference(pod, POD, _field_path(pod, name)), WARNING if warning else NORMAL, reason, message)


def _field_path(pod: Obj, name: str) -> str:
    for field, group in (
        ("containers", podspec.containers(pod)),
        ("initContainers", podspec.init_containers(pod)),
        ("ephemeralContainers", podspec.ephemeral_containers(pod)),
    ):
        if any(container["name"] == name for container in group):
            return f"spec.{field}{{{name}}}"
    return ""
