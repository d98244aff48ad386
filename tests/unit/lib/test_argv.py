"""What `ps` shows."""

import subprocess
import sys

SCRIPT = """
import sys
from pathlib import Path
from edgekube.lib.argv import conceal
conceal(sys.argv[1]); conceal(""); conceal("not there")
print(Path("/proc/self/cmdline").read_bytes().replace(b"\\0", b" ").decode())
print(sys.argv)
"""


def test_a_secret_is_not_shown_and_still_known() -> None:
    argv = [sys.executable, "-c", SCRIPT, "secret.of.mine", "--token=secret.of.mine", "end"]
    shown, _, known = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.rpartition("\n[")
    assert "secret.of.mine" not in shown
    assert shown.rstrip().endswith("xxxxxxxxxxxxxx --token=xxxxxxxxxxxxxx end")
    assert known.count("secret.of.mine") == 2
