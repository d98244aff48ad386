"""What the binary does not contain, of edgekube and of others; what was excluded for a measured reason has it beside."""

# Fakes and fault injectors that tests use. Nothing inside may import them: making the inventory fails then.
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

# What PyInstaller would run at every start for packages that somebody imports: nothing here starts processes of multiprocessing (that hook
# costs 10 ms), lists packages with pkgutil, or uses OpenSSL modules besides what cryptography has built in.
NO_START_HOOKS = ("pyi_rth_multiprocessing", "pyi_rth_pkgutil", "pyi_rth_cryptography_openssl")
