"""Small programs behind the real launcher: what it does with files, places and locks is the same as with the big one, in milliseconds."""

import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kit.binary import pack

FOOTER = struct.Struct("<QQQ32s32s64sII32s16s")

# Tells who and where it is, waits for the end of its input if asked to, and ends with the code of its name.
_PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    char own[4096] = "";
    FILE *link = popen("readlink /proc/$PPID/exe", "r");
    if (link && fgets(own, sizeof own, link)) own[strcspn(own, "\\n")] = 0;
    if (link) pclose(link);
    printf("argv0=%s arguments=%d file=%s exe=%s\\n", argv[0], argc - 1, getenv("_EDGEKUBE_FILE"), own);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[argc - 1], "wait")) while (getchar() != EOF) {}
    return argc > 1 && !strncmp(argv[argc - 1], "exit=", 5) ? atoi(argv[argc - 1] + 5) : 0;
}
"""


def small_binary(folder: Path, name: str = "edgekube", extra: bytes = b"one") -> Path:
    """A launcher with a small program; other `extra`, other version."""
    content = folder / f"{name}.content"
    (content / "lib" / "deep").mkdir(parents=True)
    subprocess.run(["gcc", "-xc", "-", "-o", str(content / "edgekube")], input=_PROGRAM.encode(), check=True)
    (content / "lib" / "data").write_bytes(extra)
    (content / "lib" / "deep" / "empty").touch()
    (content / "lib" / "link").symlink_to("data")
    return pack(content, folder / name)


def with_footer(source: Path, target: Path, **changes: object) -> Path:
    """A copy whose footer says something else."""
    names = ("offset", "length", "unpacked", "payload", "manifest", "interpreter", "glibc", "reserved", "version", "magic")
    data = source.read_bytes()
    fields = dict(zip(names, FOOTER.unpack(data[-FOOTER.size :]), strict=True)) | changes
    target.write_bytes(data[: -FOOTER.size] + FOOTER.pack(*fields.values()))
    target.chmod(0o755)
    return target


def start(argv: Sequence[object], *, env: Mapping[str, str] | None = None, shell: str = "") -> subprocess.CompletedProcess[str]:
    """Run to the end. `shell`: lines that prepare a mount namespace of its own; then the command runs in it as "$@"."""
    variables = {"PATH": os.environ["PATH"], **(env or {})}
    command = [str(word) for word in argv]
    if shell:
        command = ["unshare", "-m", "sh", "-euc", f"mount --make-rprivate /\n{shell}", "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=variables)


def versions(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir() if len(path.name) == 64)
