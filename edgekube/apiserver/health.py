"""/healthz, /livez, /readyz: named checks, asked one by one or all together, in upstream's text form."""

from collections.abc import Callable, Collection, Sequence

from edgekube.apiserver.request import Response
from edgekube.errors import NotFound

_PLAIN = "text/plain; charset=utf-8"
Check = Callable[[], str]
"""Returns "" when all is well, else why not."""


class Health:
    """The checks. `starting` names what must be ready before /readyz is; `stopping` fails it again."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {"ping": lambda: ""}
        self._ready: dict[str, Check] = {}
        self.starting = True  # until the assembly says that every component is ready
        self.stopping = False

    def add(self, name: str, check: Check, *, live: bool = False) -> None:
        """A check of readiness, with `live` also of liveness."""
        (self._live if live else self._ready)[name] = check

    def names(self, root: str) -> Sequence[str]:
        return tuple(self._checks(root))

    def _checks(self, root: str) -> dict[str, Check]:
        if root != "readyz":
            return self._live
        return self._live | self._ready | {"components": self._components, "shutdown": lambda: "stopping" if self.stopping else ""}

    def _components(self) -> str:
        return "components are still starting" if self.starting else ""

    def respond(self, path: str, *, verbose: bool, exclude: Collection[str]) -> Response:
        """Raises NotFound for a check that does not exist."""
        root, _, name = path.strip("/").partition("/")
        checks = self._checks(root)
        if name:
            if name not in checks:
                raise NotFound.path()
            problem = checks[name]()
            if problem:
                return Response(500, f"internal server error: {problem}\n".encode(), _PLAIN)
            return Response(200, b"ok", _PLAIN)
        lines: list[str] = []
        failed = False
        for each, check in checks.items():
            if each in exclude:
                lines.append(f"[+]{each} excluded: ok")
            elif problem := check():
                failed = True
                lines.append(f"[-]{each} failed: {problem}")
            else:
                lines.append(f"[+]{each} ok")
        if failed:
            return Response(500, ("\n".join(lines) + f"\n{root} check failed\n").encode(), _PLAIN)
        if verbose:
            return Response(200, ("\n".join(lines) + f"\n{root} check passed\n").encode(), _PLAIN)
        return Response(200, b"ok", _PLAIN)
