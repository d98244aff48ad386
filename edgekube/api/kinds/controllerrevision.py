"""ControllerRevision."""

from edgekube.api.kind import Kind

CONTROLLER_REVISION = Kind(
    group="apps",
    version="v1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    singular="controllerrevision",
    schema="io.k8s.api.apps.v1.ControllerRevision",
)
