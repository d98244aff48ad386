"""What an installer leaves behind for the program: the configuration file, the token's file and the systemd units.

Everything may run twice: flags given again replace single settings, and what a person wrote into the configuration file stays, comments
included. Each file is in the receipt before it is written. A token never gets into the configuration, a unit or a command line.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import edgekube
from edgekube.app.hostkinds import UNIT
from edgekube.lib.files import write_atomic, write_if_changed
from edgekube.lib.receipt import Receipt

UNIT_FOLDER = Path("/etc/systemd/system")
SHUTDOWN = "edgekube-shutdown.service"
_PROGRAM = "/usr/local/bin/edgekube"
_MARGIN = 100  # seconds that the shutdown unit has beyond what pods get


def unit_name(role: str) -> str:
    return "edgekube-agent.service" if role == "agent" else "edgekube.service"


def unit_sources() -> Path:
    """Where the units of this program are: beside the package in a checkout, inside of it once installed."""
    package = Path(edgekube.__file__).parent
    inside = package / "units"
    return inside if inside.is_dir() else package.parent / "systemd"


def plan_unit(text: str, *, config: Path | None, data_dir: Path) -> str:
    """A unit for this installation. `config`: where it is not in its usual place."""
    if config is not None:
        flag = _quoted(f"--config={config}").replace("$", "$$")
        text = re.sub(rf"^Exec\w+={_PROGRAM} \w+", lambda found: f"{found[0]} {flag}", text, flags=re.M)
    return text.replace("\n\n[Service]", f"\nRequiresMountsFor={_quoted(str(data_dir))}\n\n[Service]", 1)


def _quoted(word: str) -> str:
    """One word for a unit."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return word if re.fullmatch(r"[\w/.,:=@+-]+", word) else f'"{escaped}"'


def plan_shutdown(text: str, grace: int) -> str:
    """More time for the shutdown unit where pods get more."""
    return re.sub(r"^TimeoutStopSec=.*$", f"TimeoutStopSec={grace + _MARGIN}", text, flags=re.M)


def plan_config(text: str, values: Mapping[str, object]) -> str:
    """The configuration file with `values` (keyed data-dir) set; all other lines as they were. Values are JSON, which is YAML."""
    lines, left = text.splitlines(), dict(values)
    found: list[str] = []
    skipping = False
    for line in lines:
        key = re.match(r"([\w-]+)\s*:", line)
        if key is not None:
            skipping = key[1] in values
            if key[1] in left:
                found.append(_line(key[1], left.pop(key[1])))
        elif skipping and line[:1] not in (" ", "\t", "-"):
            skipping = False  # a comment or an empty line of the next setting
        if not skipping:
            found.append(line)
    found += [_line(key, value) for key, value in left.items()]
    return "".join(f"{line}\n" for line in found)


def _line(key: str, value: object) -> str:
    number = isinstance(value, str) and re.fullmatch(r"0|[1-9]\d*", value)
    return f"{key}: {value if number else json.dumps(value)}"


def ensure_config(path: Path, values: Mapping[str, object], receipt: Receipt) -> bool:
    """Whether it had to be written. Raises OSError."""
    old = path.read_text() if path.exists() else ""
    receipt.note_file(path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    return write_if_changed(path, plan_config(old, values).encode(), mode=mode) if values or not path.exists() else False


def ensure_token(path: Path, token: str, receipt: Receipt) -> None:
    """For root only from its first byte on."""
    receipt.note_file(path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, token.encode() + b"\n", mode=0o600)


def ensure_units(
    role: str, *, config: Path | None, data_dir: Path, grace: int, receipt: Receipt, folder: Path = UNIT_FOLDER
) -> Sequence[str]:
    """Write the units of a role; those of the other role go. The names of those to enable."""
    names = (SHUTDOWN, unit_name(role))
    other = folder / unit_name("server" if role == "agent" else "agent")
    if other.exists():
        raise FileExistsError(0, f"this machine is installed as the other role ({other.name}): run edgekube uninstall first", str(other))
    for name in names:
        receipt.note(UNIT, str(folder / name))
        text = plan_unit((unit_sources() / name).read_text(), config=config, data_dir=data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_if_changed(folder / name, (plan_shutdown(text, grace) if name == SHUTDOWN else text).encode())
    return names


def given_values(
    flags: Mapping[str, object], environ: Mapping[str, str], keys: Sequence[str], *, spared: Sequence[str]
) -> dict[str, object]:
    """What is to be remembered: flags, then EDGEKUBE_* variables; both keyed data-dir."""
    found: dict[str, object] = {}
    for key in keys:
        variable = environ.get(f"EDGEKUBE_{key.replace('-', '_').upper()}")
        value = flags.get(key, variable)
        if value is not None and key not in spared:
            found[key] = value
    return found


def is_systemd() -> bool:
    return os.path.isdir("/run/systemd/system")
