"""`edgekube check --self`: is everything that the source has inside, and can it be loaded?

The binary carries the inventory made when it was built; from source it is made now. Every module is imported, so this takes a second.
"""

import ctypes
import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

from edgekube.cli.inventory import FILE, Inventory, data_file, package_folder, registries, survey
from edgekube.lib import program

_MANIFEST = "MANIFEST"


def report() -> int:
    """Print what is missing, or how much is there. The exit code: 1 if something is missing."""
    expected = _expected()
    if expected is None:
        print(f"  FAIL  {FILE} is missing: this binary was not built by packaging/build.py")
        return 1
    problems = [*missing(expected), *_native(), *_changed()]
    for problem in problems:
        print(f"  FAIL  {problem}")
    if problems:
        return 1
    counts = {"modules": len(expected["modules"]), "data files": len(expected["data"])}
    counts |= {name: len(names) for name, names in expected["registries"].items()}
    print("  ok    " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    return 0


def missing(expected: Inventory) -> Iterator[str]:
    """One line for each thing of the inventory that this program does not have."""
    for name, defined in expected["modules"].items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            yield f"module {name}: {error}"
            continue
        yield from (f"{name} lacks {each}" for each in defined if not hasattr(module, each))
    yield from (problem for each in expected["imports"] if (problem := _import(each)))
    for name, digest in expected["data"].items():
        path = data_file(name)
        if not path.is_file():
            yield f"data file {name} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield f"data file {name} is not the one of the source"
    present = registries()
    for registry, names in expected["registries"].items():
        yield from (f"{registry}: {name} is missing" for name in names if name not in present.get(registry, ()))


def _expected() -> Inventory | None:
    path = package_folder() / FILE
    if path.exists():
        found: Inventory = json.loads(path.read_text())
        return found
    return None if program.is_frozen() else survey()


def _import(what: str) -> str:
    """Empty if it can be imported; `module:name` may name a module too."""
    module, _, name = what.partition(":")
    try:
        found = importlib.import_module(module)
        if name and name != "*" and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
    except ImportError as error:
        return f"{what.replace(':', '.')}: {error}"
    return ""


def _native() -> Iterator[str]:
    """Every shared library of the binary can be loaded."""
    folder = program.unpacked()
    for path in sorted(folder.rglob("*.so*")) if folder is not None else ():
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            yield f"library {path.name}: {error}"


def _changed() -> Iterator[str]:
    """Every unpacked file is what was packed; the launcher has compared the sizes only."""
    folder = program.unpacked()
    if folder is None or not (folder / _MANIFEST).exists():
        return
    for line in (folder / _MANIFEST).read_text().splitlines():
        digest, _, _, name = line.split(" ", 3)
        if _digest(folder / name) not in ("", digest):
            yield f"file {name} was changed: delete {folder}, it is unpacked anew at the next start"


def _digest(path: Path) -> str:
    """Of a file's content or a link's target; empty for a folder, whose files are looked at by themselves."""
    if path.is_symlink():
        return hashlib.sha256(str(path.readlink()).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" if path.is_dir() else "missing"
