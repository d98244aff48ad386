"""The server's credentials: made once, renewed when due, safe to kill anywhere, cheap to start with."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgekube.apiserver.credentials import Pki, ensure_pki, serving_subject, write_kubeconfig
from edgekube.lib import pki

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def make(folder: Path, now: datetime = NOW, **more: Any) -> Pki:
    settings: dict[str, Any] = {"node_name": "pi", "addresses": ["192.168.1.5"], "sans": ["foo.example", "10.9.8.7"]} | more
    return ensure_pki(folder / "pki", now=now, **settings)


def test_everything_is_there_and_signed_by_the_authority(tmp_path: Path) -> None:
    made = make(tmp_path)
    for path in (made.apiserver, made.admin, made.apiserver_kubelet_client, made.kubelet, made.kubelet_client):
        checked = subprocess.run(["openssl", "verify", "-CAfile", made.ca, path], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert path.stat().st_mode & 0o777 == 0o600
    subject = pki.load_certificate(made.kubelet_client.read_bytes()).subject.rfc4514_string()
    assert "CN=system:node:pi" in subject
    assert "O=system:nodes" in subject


def test_second_call_changes_nothing_and_needs_no_cryptography(tmp_path: Path) -> None:
    first = make(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()}
    code = (
        "import sys; from datetime import *; from pathlib import Path; from edgekube.apiserver.credentials import ensure_pki\n"
        f"p = ensure_pki(Path({str(tmp_path / 'pki')!r}), node_name='pi', addresses=['192.168.1.5'], sans=['foo.example','10.9.8.7'],"
        f" now=datetime.fromisoformat({NOW.isoformat()!r}))\n"
        "assert not p.changed, p.changed\nassert 'cryptography' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
    assert {path.name: path.read_bytes() for path in (tmp_path / "pki").iterdir()} == before
    assert first.changed >= {"ca", "apiserver", "admin"}


def test_serving_certificate_follows_the_addresses(tmp_path: Path) -> None:
    make(tmp_path)
    again = make(tmp_path, addresses=["192.168.1.6"])
    assert again.changed == {"apiserver", "kubelet"}


def test_leaves_are_renewed_and_the_authority_stays(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert first.renew_at < NOW + timedelta(days=250)
    authority = first.authority.read_bytes()
    later = make(tmp_path, NOW + timedelta(days=250))
    assert later.changed == {"apiserver", "admin", "apiserver-kubelet-client", "kubelet", "kubelet-client"}
    assert later.authority.read_bytes() == authority
    assert later.renew_at > NOW + timedelta(days=250)


def test_expired_authority_is_renewed_with_its_key(tmp_path: Path) -> None:
    first = make(tmp_path)
    key = pki.key_pem(first.authority.read_bytes())
    later = make(tmp_path, NOW + timedelta(days=2600))
    assert "ca" in later.changed
    assert pki.key_pem(later.authority.read_bytes()) == key


@pytest.mark.parametrize("point", ["pki.authority=kill", "pki.leaf=kill", "pki.leaf=kill:3", "pki.leaf=kill:5"])
def test_killed_anywhere_the_next_start_completes_it(tmp_path: Path, point: str) -> None:
    code = (
        "from datetime import *; from pathlib import Path; from edgekube.apiserver.credentials import ensure_pki\n"
        f"ensure_pki(Path({str(tmp_path / 'pki')!r}), node_name='pi', addresses=['192.168.1.5'], now=datetime.now(UTC))"
    )
    environment = os.environ | {"EDGEKUBE_FAILPOINTS": point}
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[3], env=environment)
    assert killed.returncode == -9
    authority = (tmp_path / "pki" / "ca.pem").read_bytes()
    made = ensure_pki(tmp_path / "pki", node_name="pi", addresses=["192.168.1.5"], now=datetime.now(UTC))
    assert made.authority.read_bytes() == authority, "an authority that was used is never replaced"
    checked = subprocess.run(["openssl", "verify", "-CAfile", made.ca, made.apiserver], capture_output=True, check=False)
    assert checked.returncode == 0
    assert not ensure_pki(tmp_path / "pki", node_name="pi", addresses=["192.168.1.5"], now=datetime.now(UTC)).changed


def test_damaged_authority_is_an_error_and_not_replaced(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.authority.write_bytes(b"garbage")
    with pytest.raises(ValueError, match="ca.pem is damaged"):
        make(tmp_path)
    assert made.authority.read_bytes() == b"garbage"


def test_damaged_leaf_or_index_is_made_anew(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.apiserver.write_bytes(b"garbage")
    assert make(tmp_path).changed == {"apiserver"}
    (tmp_path / "pki" / "index.json").write_bytes(b"{")
    assert "ca" not in make(tmp_path).changed
    assert not make(tmp_path).changed


def test_kubeconfig_is_private_and_complete(tmp_path: Path) -> None:
    made = make(tmp_path)
    path = tmp_path / "etc" / "kubeconfig.yaml"
    assert write_kubeconfig(path, server_url="https://127.0.0.1:6443", ca=made.ca, credential=made.admin)
    assert not write_kubeconfig(path, server_url="https://127.0.0.1:6443", ca=made.ca, credential=made.admin)
    assert path.stat().st_mode & 0o777 == 0o600
    text = json.loads(path.read_text())
    assert set(text["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_serving_names() -> None:
    subject = serving_subject(
        node_name="pi", addresses=["10.0.0.1"], sans=["1.2.3.4", "x.y"], cluster_domain="cluster.local", kubernetes_address="10.43.0.1"
    )
    assert {"kubernetes.default.svc.cluster.local", "localhost", "pi", "x.y"} <= set(subject.names)
    assert {"10.43.0.1", "127.0.0.1", "10.0.0.1", "1.2.3.4"} <= set(subject.addresses)
