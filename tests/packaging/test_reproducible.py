"""Two builds of the same tree give the same bytes: in another folder, of another time and by somebody with other habits."""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib

import pytest

from tests.kit.binary import ROOT, WORK, binary, build
from tests.kit.requires import needs

pytestmark = needs("build")


@pytest.mark.timeout(600)
@pytest.mark.skipif("EDGEKUBE_BINARY" in os.environ, reason="NOT TESTED HERE: EDGEKUBE_BINARY was built elsewhere")
def test_another_build_of_the_same_tree(tmp_path):
    first = binary()
    tree = tmp_path / "another checkout"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "tests"))
    for path in tree.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    mask = os.umask(0o077)
    try:
        build(tmp_path / "out", WORK, tree)
    finally:
        os.umask(mask)
    for name in (first.name, f"{first.name}.cdx.json", "SHA256SUMS"):
        assert (tmp_path / "out" / name).read_bytes() == (first.parent / name).read_bytes(), name
    assert hashlib.sha256(first.read_bytes()).hexdigest() in (tmp_path / "out" / "SHA256SUMS").read_text()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], check=True, cwd=tmp_path / "out")


def test_the_lock_has_all_that_is_needed():
    """Every dependency of pyproject.toml is locked for both architectures, and nothing is there without hashes."""
    lock = (ROOT / "packaging" / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    missing = {re.split(r"[<>=~! ]", line)[0].lower().replace("_", "-") for line in wanted} - locked
    assert not missing, f"run packaging/lock.py: {missing}"
    assert len(re.findall(r"^\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)) == len(locked)
