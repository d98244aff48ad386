"""Paths inside volumes and containers: relative, and never climbing out (pkg/apis/core/validation/validation.go)."""

from edgekube.api import problems
from edgekube.errors import Problem


def no_backsteps(path: str) -> bool:
    """No `..` element."""
    return ".." not in path or ".." not in path.split("/")


def local_descending_path(found: list[Problem], at: str, path: str) -> None:
    """validateLocalDescendingPath: relative and without `..`."""
    if path.startswith("/"):
        found.append(problems.invalid(at, path, "must be a relative path"))
    backsteps(found, at, path)


def backsteps(found: list[Problem], at: str, path: str) -> None:
    """validatePathNoBacksteps."""
    if not no_backsteps(path):
        found.append(problems.invalid(at, path, "must not contain '..'"))


def local_non_reserved_path(found: list[Problem], at: str, path: str) -> None:
    """validateLocalNonReservedPath: as above, and not where the kubelet keeps its own."""
    local_descending_path(found, at, path)
    if path.startswith("..") and not path.startswith("../"):
        found.append(problems.invalid(at, path, "must not start with '..'"))
