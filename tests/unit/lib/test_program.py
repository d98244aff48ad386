"""What the package puts into the environment is gone at once; how the program starts itself."""

import os
import sys
from pathlib import Path

import pytest

from edgekube.lib import program


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(program, "_launcher", [])


def frozen(monkeypatch, **variables):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    for name in ("LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_of_the_package_nothing_stays(monkeypatch):
    frozen(monkeypatch, LD_LIBRARY_PATH="/unpacked/lib", _PYI_ARCHIVE_FILE="x", _EDGEKUBE_FILE="/usr/local/bin/edgekube")
    program.settle()
    assert "LD_LIBRARY_PATH" not in os.environ
    assert not [name for name in os.environ if name.startswith(("_PYI", "_EDGEKUBE"))]
    assert program.launcher() == Path("/usr/local/bin/edgekube")
    assert program.own_command() == ["/usr/local/bin/edgekube"]


def test_what_the_user_had_set_comes_back(monkeypatch):
    frozen(monkeypatch, LD_LIBRARY_PATH="/unpacked/lib", LD_LIBRARY_PATH_ORIG="/user")
    program.settle()
    assert os.environ["LD_LIBRARY_PATH"] == "/user"
    assert "LD_LIBRARY_PATH_ORIG" not in os.environ


def test_from_source_the_users_libraries_are_left_alone(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/user")
    program.settle()
    assert os.environ["LD_LIBRARY_PATH"] == "/user"
    assert program.own_command() == [sys.executable, "-m", "edgekube"]
    assert program.launcher() is None
    assert program.unpacked() is None
