"""The query options that writes share: dryRun, fieldValidation, fieldManager, force. Reads them into the operation or refuses them.

Refusals name all that is wrong at once, as CreateOptions, UpdateOptions, PatchOptions or DeleteOptions.
"""

from collections.abc import Iterable

from edgekube.api import problems
from edgekube.apiserver.operation import IGNORE, STRICT, WARN, Operation
from edgekube.apiserver.request import Request
from edgekube.apiserver.target import truth
from edgekube.client.protocol import PatchType
from edgekube.errors import Invalid, Problem

_MODES = (IGNORE, STRICT, WARN)
_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}
_LONGEST = 128


def read_write_options(op: Operation, request: Request) -> None:
    """Raises Invalid, BadRequest."""
    query = request.query
    applies = request.headers.get("content-type", "").partition(";")[0] == PatchType.APPLY.value
    found: list[Problem] = []
    if request.method == "PATCH" and "force" in query:
        op.force = truth(request.param("force"))
        if not applies:
            found.append(problems.forbidden("force", "may not be specified for non-apply patch"))
    op.field_manager = request.param("fieldManager")
    found += manager_problems("fieldManager", op.field_manager)
    dry_run = [value for value in query.get("dryRun", ()) if value]
    found += [problems.not_supported("dryRun", value, ("All",)) for value in dry_run if value != "All"][:1]
    op.dry_run = bool(dry_run)
    op.field_validation = request.param("fieldValidation") or WARN
    if op.field_validation not in _MODES:
        found.append(problems.not_supported("fieldValidation", op.field_validation, _MODES))
    if found:
        raise Invalid.of("meta.k8s.io", _OPTIONS.get(request.method, "DeleteOptions"), "", found)
    if not op.field_manager and not applies:
        op.field_manager = request.headers.get("user-agent", "").partition("/")[0][:_LONGEST] or "unknown"


def manager_problems(field: str, manager: str) -> Iterable[Problem]:
    """A manager's name is short and can be printed. Positions count bytes, as Go does."""
    if len(manager.encode(errors="replace")) > _LONGEST:
        yield problems.too_long(field, _LONGEST)
    position = 0
    for char in manager:
        if not char.isprintable():
            yield problems.invalid(field, manager, f"invalid character U+{ord(char):04X} (at position {position})")
        position += len(char.encode(errors="replace"))
