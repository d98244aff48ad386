"""What an installer leaves behind: settings laid over what a person wrote, a token for root only, units for this installation."""

from pathlib import Path

import pytest
import yaml

from edgekube.app import setup
from edgekube.lib.receipt import Receipt


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("", {"https-port": "7443", "node-name": "007"}, 'https-port: 7443\nnode-name: "007"\n'),
        ("# mine\nnode-name: pi  # why\n", {}, "# mine\nnode-name: pi  # why\n"),
        ("# mine\nnode-name: pi\nmax-pods: 9\n", {"node-name": "shed"}, '# mine\nnode-name: "shed"\nmax-pods: 9\n'),
        ("tls-san:\n  - a\n  - b\nmax-pods: 9\n", {"tls-san": ["c"]}, 'tls-san: ["c"]\nmax-pods: 9\n'),
        ("tls-san:\n- a\n- b\n# next\nmax-pods: 9\n", {"tls-san": ["c"]}, 'tls-san: ["c"]\n# next\nmax-pods: 9\n'),
        ("max-pods: 9", {"node-labels": ["a=b"]}, 'max-pods: 9\nnode-labels: ["a=b"]\n'),
    ],
)
def test_settings_are_laid_over_what_a_person_wrote(text, values, expected):
    found = setup.plan_config(text, values)
    assert found == expected
    assert setup.plan_config(found, values) == found
    wanted = (yaml.safe_load(text) or {}) | values
    assert {key: str(value) for key, value in (yaml.safe_load(found) or {}).items()} == {key: str(value) for key, value in wanted.items()}


def test_flags_win_over_variables_and_the_token_is_never_among_them():
    environ = {"EDGEKUBE_HTTPS_PORT": "1", "EDGEKUBE_NODE_NAME": "pi", "EDGEKUBE_TOKEN": "secret", "HOME": "/root"}
    found = setup.given_values({"https-port": "2"}, environ, ["https-port", "node-name", "token"], spared=["token"])
    assert found == {"https-port": "2", "node-name": "pi"}


def test_the_token_is_for_root_only_and_in_no_other_file(tmp_path):
    receipt = Receipt(tmp_path / "data" / "host")
    setup.ensure_token(tmp_path / "etc" / "join-token", "EK1secret", receipt)
    assert (tmp_path / "etc" / "join-token").stat().st_mode & 0o777 == 0o600
    setup.ensure_units("agent", config=None, data_dir=tmp_path / "data", grace=20, receipt=receipt, folder=tmp_path / "units")
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and "EK1secret" in path.read_text()]
    assert holders == [tmp_path / "etc" / "join-token"]


def test_units_know_the_data_directory_and_the_configuration(tmp_path):
    receipt = Receipt(tmp_path / "host")
    names = setup.ensure_units(
        "server", config=Path("/srv/my 100%.yaml"), data_dir=Path("/srv/ek"), grace=300, receipt=receipt, folder=tmp_path / "units"
    )
    assert list(names) == ["edgekube-shutdown.service", "edgekube.service"]
    text = (tmp_path / "units" / "edgekube.service").read_text()
    assert 'ExecStart=/usr/local/bin/edgekube server "--config=/srv/my 100%%.yaml"\n' in text
    assert "RequiresMountsFor=/srv/ek\n" in text
    assert "TimeoutStopSec=400" in (tmp_path / "units" / "edgekube-shutdown.service").read_text()
    assert [change.name for change in receipt.changes()] == [str(tmp_path / "units" / name) for name in names]


def test_one_machine_has_one_role(tmp_path):
    options = {"config": None, "data_dir": tmp_path, "grace": 20, "receipt": Receipt(tmp_path / "host"), "folder": tmp_path / "units"}
    setup.ensure_units("server", **options)
    setup.ensure_units("server", **options)
    with pytest.raises(FileExistsError, match="edgekube uninstall"):
        setup.ensure_units("agent", **options)
