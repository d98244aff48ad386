"""Which restart policy holds for a container, and how long a restart has to wait: crash-loop back-off. No clock of its own.

The first restart is immediate; then 10 s, doubled up to 300 s, counted from the end of the last attempt. A container that ran longer
than 10 minutes after its last restart starts over (upstream: client-go flowcontrol.Backoff under kuberuntime's doBackOff).
"""

from dataclasses import dataclass

from edgekube.api.types import Obj
from edgekube.kubelet.podspec import is_deleting, is_sidecar, restart_policy
from edgekube.kubelet.runtime.protocol import ContainerInfo

BASE, CAP = 10.0, 300.0


@dataclass(slots=True)
class _Entry:
    delay: float
    since: float


class CrashLoop:
    """Back-off per container of one pod, keyed by name. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def remaining(self, name: str, finished: float, now: float) -> float:
        """Seconds to wait still; 0: go."""
        entry = self._entries.get(name)
        if entry is None or finished - entry.since > 2 * CAP:
            return 0.0
        return max(0.0, finished + entry.delay - now)

    def delay(self, name: str) -> float:
        """What the back-off is now, for messages."""
        entry = self._entries.get(name)
        return entry.delay if entry else 0.0

    def restarted(self, name: str, finished: float, now: float) -> None:
        """The container is being restarted: the next time waits longer."""
        entry = self._entries.get(name)
        if entry is None or finished - entry.since > 2 * CAP:
            self._entries[name] = _Entry(BASE, now)
        else:
            entry.delay, entry.since = min(CAP, entry.delay * 2), now

    def forget(self, name: str) -> None:
        self._entries.pop(name, None)


def policy_of(pod: Obj, container: Obj) -> str:
    """The container's own restartPolicy (sidecars, container restart rules), else the pod's."""
    return container.get("restartPolicy") or restart_policy(pod)


def should_restart(pod: Obj, container: Obj, last: ContainerInfo | None) -> bool:
    """Whether a container that does not run should be started (again)."""
    if is_deleting(pod):
        return False
    if last is None or last.state == "created":
        return True
    if last.state == "running":
        return False
    return restarts_after(pod, container, last.exit_code)


def restarts_after(pod: Obj, container: Obj, exit_code: int) -> bool:
    """By restartPolicyRules first, then by the policy."""
    for rule in container.get("restartPolicyRules") or ():
        wanted = rule.get("exitCodes") or {}
        listed = exit_code in (wanted.get("values") or ())
        if listed == (wanted.get("operator") == "In"):
            return bool(rule.get("action") == "Restart")
    policy = policy_of(pod, container)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def restarts_init(pod: Obj, container: Obj, exit_code: int) -> bool:
    """For an init container that failed: Never (and no rule) ends the pod, else it is tried again."""
    if is_sidecar(container):
        return True
    if container.get("restartPolicy") or container.get("restartPolicyRules"):
        return restarts_after(pod, container, exit_code)
    return restart_policy(pod) != "Never"
