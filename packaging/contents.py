"""What the binary contains of edgekube, and what of others it does not: each exclusion was measured and its reason is beside it."""

from pathlib import Path

# Fakes and fault injectors that tests use; nothing inside may import them (freeze.py looks).
LEFT_OUT = ("edgekube.client.faulty", "edgekube.store.memory")

EXCLUDES = (
    *LEFT_OUT,
    "frozenlist._frozenlist",  # the only user of libstdc++ (2 MB, and glibc 2.36); the Python version serves lists of a dozen entries
    "xml",
    "pyexpat",  # libexpat of Debian 12 needs glibc 2.36
    "_codecs_cn",
    "_codecs_hk",
    "_codecs_iso2022",
    "_codecs_jp",
    "_codecs_kr",
    "_codecs_tw",
    "_multibytecodec",
    "tkinter",
    "pydoc",
    "pydoc_data",
    "doctest",
    "lib2to3",
    "distutils",
    "setuptools",
    "pkg_resources",
    "pip",
    "test",
    "curses",
    "readline",
    "sqlite3.test",
)

# Not taken from the build machine: what excluded modules want; the host's own nftables (it must fit the host's kernel and its programs)
# with all that only it needs; and libexpat, in whose place freeze.py puts an empty shell.
NO_LIBRARIES = (
    "libstdc++.so",
    "libexpat.so",
    "libnftables.so",
    "libnftnl.so",
    "libxtables.so",
    "libmnl.so",
    "libjansson.so",
    "libgmp.so",
    "libedit.so",
    "libbsd.so",
    "libmd.so",
    "libtinfo.so",
)


def modules(source: Path) -> list[str]:
    """Every module of edgekube below `source` that belongs into the binary."""
    found = []
    for path in sorted((source / "edgekube").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in LEFT_OUT and not name.endswith(".fake"):
            found.append(name)
    return found
