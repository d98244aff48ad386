"""The house rules that a linter does not know."""

import ast
import dataclasses
import re
import subprocess
from pathlib import Path

from edgekube import config

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "edgekube").rglob("*.py"))
LONGEST = 500


def test_no_file_is_too_long():
    long = {str(path.relative_to(ROOT)): lines for path in SOURCES if (lines := len(path.read_text().splitlines())) > LONGEST}
    assert long == {}


def test_every_module_says_what_it_does():
    silent = [str(path.relative_to(ROOT)) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_every_setting_says_what_it_is():
    assert [f.name for f in dataclasses.fields(config.Settings) if not f.metadata.get("help")] == []


def test_every_setting_is_read_somewhere():
    text = "\n".join(path.read_text().replace("self.", "settings." if path.name == "config.py" else "self.") for path in SOURCES)
    unused = [f.name for f in dataclasses.fields(config.Settings) if not re.search(rf"\bsettings\.{f.name}\b", text)]
    assert unused == []


def test_no_suppressions():
    marks = re.compile(r"#\s*(type:\s*ignore|noqa|pragma: no cover|pylint|mypy:)")
    found = [
        f"{path.relative_to(ROOT)}:{n}" for path in SOURCES for n, line in enumerate(path.read_text().splitlines(), 1) if marks.search(line)
    ]
    assert found == []


def test_packages_are_layered():
    done = subprocess.run(
        [str(Path(__import__("sys").executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
