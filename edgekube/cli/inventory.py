"""What this program consists of, as its source tree says. The build writes it into the binary, where `edgekube check --self` compares.

Modules with the classes and functions each defines, what they import of others, data files, and the names in every registry: a kind,
plugin, controller or command that the source has and the binary lacks is found whichever way it got lost.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import edgekube

FILE = "inventory.json"  # beside the package's modules, in the binary alone


_UNITS = "units"  # of systemd: in the binary a folder of the package, in a checkout the folder `systemd` beside it


class Inventory(TypedDict):
    """Everything sorted: equal trees have equal inventories."""

    modules: dict[str, list[str]]  # module -> classes and functions it defines
    imports: list[str]  # `module` or `module:name` of other packages, those of functions (lazy ones) too
    data: dict[str, str]  # path below the package -> SHA-256
    registries: dict[str, list[str]]


def package_folder() -> Path:
    """Where the package's data files are, in the source and in the binary."""
    return Path(edgekube.__file__).parent


def data_file(name: str) -> Path:
    """Where a data file of the inventory is."""
    path = package_folder() / name
    folder, _, unit = name.partition("/")
    return package_folder().parent / "systemd" / unit if folder == _UNITS and not path.exists() else path


def survey(left_out: Sequence[str] = ()) -> Inventory:
    """Read the source tree this runs from, but for the modules `left_out`."""
    root = package_folder()
    trees = {name: ast.parse(path.read_bytes()) for name, path in _modules(root) if name not in left_out}
    imports = {found for tree in trees.values() for found in _imports(tree)}
    own = {found.partition(":")[0] for found in imports if _is_own(found)}
    if missing := sorted(own - trees.keys()):
        raise ValueError(f"{', '.join(missing)} is imported, but left out")
    data = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    data |= {f"{_UNITS}/{path.name}": path for path in (root.parent / "systemd").glob("*")}
    return Inventory(
        modules={name: _defined(tree) for name, tree in sorted(trees.items())},
        imports=sorted(imports - {found for found in imports if _is_own(found)}),
        data={name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(data.items())},
        registries=registries(),
    )


def registries() -> dict[str, list[str]]:
    """The names in every list of things that generic code works through, as the running program has them."""
    from edgekube.api.catalog import KINDS
    from edgekube.apiserver.admission.plugins import PLUGINS as ADMISSION
    from edgekube.cli.main import COMMANDS
    from edgekube.controllers.component import CONTROLLERS
    from edgekube.kubelet.volumes.manager import PLUGINS as VOLUMES
    from edgekube.scheduler.plugins import Plugins

    scheduler = Plugins(dict[str, Mapping[str, str]])
    filters, scores = {plugin.name for plugin in scheduler.filters}, {plugin.name for plugin in scheduler.scores}
    return {
        "kinds": sorted(f"{kind.group or 'core'}/{kind.version}/{kind.plural}" for kind in KINDS),
        "subresources": sorted(f"{kind.group or 'core'}/{kind.plural}/{name}" for kind in KINDS for name in kind.subresources),
        "admission plugins": [str(number) for number, _ in enumerate(ADMISSION)],
        "scheduler plugins": sorted(filters | scores | {plugin.name for plugin in scheduler.narrowers}),
        "controllers": sorted(name for name, _ in CONTROLLERS),
        "volume plugins": sorted(VOLUMES),
        "commands": sorted(command.name for command in COMMANDS),
    }


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _is_own(found: str) -> bool:
    return found.partition(":")[0].partition(".")[0] == "edgekube"


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}:{each.name}" for each in node.names)


def _defined(tree: ast.Module) -> list[str]:
    return sorted(node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
