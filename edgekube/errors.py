"""The errors of the API, on both sides of the wire: the server raises them, the client raises the same class from the Status it got.

    ApiError 500 InternalError
     |- BadRequest 400            |- Unauthorized 401         |- Forbidden 403            |- NotFound 404
     |- MethodNotAllowed 405      |- NotAcceptable 406        |- Conflict 409             |- AlreadyExists 409
     |- Gone 410 Gone             |- Expired 410 Expired      |- TooLarge 413             |- UnsupportedMediaType 415
     |- Invalid 422               |- TooManyRequests 429      |- ServiceUnavailable 503   |- ServerTimeout 504 / Timeout 504
     |- Unclassified 500 (no reason)

Messages follow k8s.io/apimachinery/pkg/api/errors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why an object is invalid. `reason` is upstream's cause type (FieldValueInvalid, FieldValueRequired, ...).

    `message` is the full text upstream shows for the cause, e.g. `Required value` or `Invalid value: "x": must be ...`.
    Build them through edgekube.api.problems.
    """

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """A refusal with a Status body."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_status(self) -> dict[str, Any]:
        """The body clients get."""
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> "ApiError":
        """The class that `status` stands for; an unknown reason falls back to its code, then to ApiError."""
        reason, code = status.get("reason", ""), status.get("code", 500)
        known = _BY_REASON.get(reason) or next((kind for kind in _BY_CODE if kind.code == code), ApiError)
        error = known.__new__(known)
        ApiError.__init__(error, status.get("message", reason), details=status.get("details"))
        return error

    @property
    def retry_after(self) -> int:
        """Seconds the server asks to wait, 0 if it does not say."""
        return int((self.details or {}).get("retryAfterSeconds", 0))


class Unclassified(ApiError):
    """500 without a reason: how upstream answers with an error that it did not foresee as an answer."""

    code, reason = 500, ""


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized") -> None:
        super().__init__(message)


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"

    @classmethod
    def of(cls, group: str, resource: str, name: str, why: str) -> "Forbidden":
        """`pods "web" is forbidden: why`."""
        target = f"{resource}.{group}" if group else resource
        text = f'{target} "{name}" is forbidden: {why}' if name else f"{target} is forbidden: {why}"
        return cls(text, details=_details(group=group, kind=resource, name=name))


class NotFound(ApiError):
    code, reason = 404, "NotFound"

    @classmethod
    def of(cls, group: str, resource: str, name: str) -> "NotFound":
        target = f"{resource}.{group}" if group else resource
        return cls(f'{target} "{name}" not found', details=_details(group=group, kind=resource, name=name))

    @classmethod
    def path(cls) -> "NotFound":
        """An address that leads nowhere."""
        return cls("the server could not find the requested resource", details={})


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"

    def __init__(self, message: str = "the server does not allow this method on the requested resource") -> None:
        super().__init__(message, details={})


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class Conflict(ApiError):
    code, reason = 409, "Conflict"

    @classmethod
    def of(cls, group: str, resource: str, name: str, why: str) -> "Conflict":
        target = f"{resource}.{group}" if group else resource
        return cls(f'Operation cannot be fulfilled on {target} "{name}": {why}', details=_details(group=group, kind=resource, name=name))

    @classmethod
    def modified(cls, group: str, resource: str, name: str) -> "Conflict":
        """The resourceVersion sent is not the newest."""
        why = "the object has been modified; please apply your changes to the latest version and try again"
        return cls.of(group, resource, name, why)


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"

    @classmethod
    def of(cls, group: str, resource: str, name: str) -> "AlreadyExists":
        target = f"{resource}.{group}" if group else resource
        return cls(f'{target} "{name}" already exists', details=_details(group=group, kind=resource, name=name))


class Gone(ApiError):
    code, reason = 410, "Gone"


class Expired(ApiError):
    """The resourceVersion or continue token is older than the history: list again."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"

    @classmethod
    def of(cls, group: str, kind: str, name: str, problems: Iterable[Problem]) -> "Invalid":
        """All problems in one refusal, as NewInvalid words it."""
        found = list(problems)
        texts = [f"{problem.field}: {problem.message}" for problem in found]
        joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
        target = f"{kind}.{group}" if group else kind
        causes = [{"reason": p.reason, "message": p.message, "field": p.field} for p in found]
        return cls(f'{target} "{name}" is invalid: {joined}', details=_details(group=group, kind=kind, name=name) | {"causes": causes})

    @property
    def causes(self) -> Sequence[Mapping[str, str]]:
        causes: Sequence[Mapping[str, str]] = (self.details or {}).get("causes", ())
        return causes


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class ServiceUnavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class ServerTimeout(ApiError):
    """The operation could not complete in time; the client may try again."""

    code, reason = 500, "ServerTimeout"


class Timeout(ApiError):
    code, reason = 504, "Timeout"


def _details(**fields: str) -> dict[str, Any]:
    order = ("name", "group", "kind", "uid")
    return {name: fields[name] for name in order if fields.get(name)}


_ALL: tuple[type[ApiError], ...] = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists, Expired, Gone, TooLarge,
    UnsupportedMediaType, Invalid, TooManyRequests, ServiceUnavailable, ServerTimeout, Timeout,
)  # fmt: skip
_BY_REASON = {kind.reason: kind for kind in _ALL} | {ApiError.reason: ApiError}
_BY_CODE: tuple[type[ApiError], ...] = (Unclassified, *_ALL)
