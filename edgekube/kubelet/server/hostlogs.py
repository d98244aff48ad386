"""/logs/: files and folders of the host's log folder, read only. Blocks: call it in a thread."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from edgekube.kubelet.server.http import Reply

_LIMIT = 8 << 20


def host_log(root: Path, parts: Sequence[str]) -> Reply:
    """A listing, or the last 8 MiB of a file. Whatever lies outside of the folder, also by a link, does not exist."""
    base = root.resolve()
    path = base.joinpath(*parts).resolve()
    if ".." in parts or not path.is_relative_to(base):
        return Reply(404, b"404 page not found\n")
    if path.is_dir():
        names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(path))
        lines = [f'<a href="{quote(name)}">{html.escape(name)}</a>' for name in names]
        return Reply(200, "\n".join(["<pre>", *lines, "</pre>", ""]).encode(), "text/html; charset=utf-8")
    if not path.is_file():
        return Reply(404, b"404 page not found\n")
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LIMIT))
        return Reply(200, file.read(_LIMIT))
