"""Event: core/v1 and events.k8s.io/v1 are two views of one stored object."""

from edgekube.api.kind import Kind

EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    short=("ev",),
    schema="io.k8s.api.core.v1.Event",
    ephemeral=True,
)

EVENT_V1 = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    short=("ev",),
    schema="io.k8s.api.events.v1.Event",
    ephemeral=True,
    store_bucket="events",
)
