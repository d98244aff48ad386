"""The difference of two pod specs as a refusal shows it: in the manner of go-cmp, as upstream words its Go types.

Only what differs is spelled out; the rest is counted. Clients show the text, nobody parses it.
"""

from typing import Any

from edgekube.api.types import Obj


def pod_spec(old: Obj, new: Obj) -> str:
    """`  core.PodSpec{ ... - old, + new }`."""
    lines = ["  core.PodSpec{"]
    _fields(lines, old, new, 1)
    lines.append("  }")
    return "\n".join(lines) + "\n"


def _fields(lines: list[str], old: Obj, new: Obj, depth: int) -> None:
    same = 0
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if was == now:
            same += 1
            continue
        if same:
            _same(lines, same, "identical fields", depth)
            same = 0
        title = name[0].upper() + name[1:]
        if isinstance(was, dict) and isinstance(now, dict):
            lines.append(f"  {_pad(depth)}{title}: {{")
            _fields(lines, was, now, depth + 1)
            lines.append(f"  {_pad(depth)}}},")
        elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
            lines.append(f"  {_pad(depth)}{title}: {{")
            _elements(lines, was, now, depth + 1)
            lines.append(f"  {_pad(depth)}}},")
        else:
            if name in old:
                lines.append(f"- {_pad(depth)}{title}: {_shown(was)},")
            else:
                lines.append(f"- {_pad(depth)}{title}: nil,")
            lines.append(f"+ {_pad(depth)}{title}: {_shown(now) if name in new else 'nil'},")
    if same:
        _same(lines, same, "identical fields", depth)


def _elements(lines: list[str], old: list[Any], new: list[Any], depth: int) -> None:
    for was, now in zip(old, new, strict=True):
        if was == now:
            _same(lines, 1, "identical elements", depth)
        elif isinstance(was, dict) and isinstance(now, dict):
            lines.append(f"  {_pad(depth)}{{")
            _fields(lines, was, now, depth + 1)
            lines.append(f"  {_pad(depth)}}},")
        else:
            lines += [f"- {_pad(depth)}{_shown(was)},", f"+ {_pad(depth)}{_shown(now)},"]


def _same(lines: list[str], count: int, what: str, depth: int) -> None:
    lines.append(f"  {_pad(depth)}... // {count} {what}")


def _pad(depth: int) -> str:
    return "\t" * depth


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name[0].upper() + name[1:]}: {_shown(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(_shown(inner) for inner in value) + "}"
    return str(value)
