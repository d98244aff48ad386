"""These tests take minutes and a GiB, so they run only when asked for: `tests/run.sh --vm`, or EDGEKUBE_VM=1."""

import os
from pathlib import Path

import pytest

from tests.kit.requires import needs

HERE = Path(__file__).parent
MARKS = (
    needs("root", "qemu", "kubectl", "busybox"),
    pytest.mark.skipif(os.environ.get("EDGEKUBE_VM") != "1", reason="NOT TESTED HERE: takes minutes; run tests/run.sh --vm"),
    pytest.mark.timeout(3600),
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE:
            for mark in MARKS:
                item.add_marker(mark)
