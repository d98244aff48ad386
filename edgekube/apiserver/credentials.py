"""The server's own credentials: which files exist, who they speak for, and that they are there and fresh.

    pki/ca.pem  the authority (key and certificate)      pki/ca.crt   its certificate, for others to read
    pki/apiserver.pem                 serving certificate of the API
    pki/admin.pem                     kubernetes-admin in system:masters, for the admin kubeconfig
    pki/apiserver-kubelet-client.pem  the API server towards kubelets
    pki/kubelet.pem                   serving certificate of this node's kubelet
    pki/kubelet-client.pem            system:node:NAME in system:nodes
    pki/service-account.key           signs service account tokens (ES256)
    pki/index.json                    digest, subject and dates of the files above

`ensure_pki` is idempotent and safe to kill anywhere: each file is a whole pair of key and certificate, and the index only says which files
need no second look, so that an ordinary start does not import the cryptography library (35 ms).
"""

import base64
import hashlib
import ipaddress
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edgekube.lib import pki
from edgekube.lib.failpoint import hit
from edgekube.lib.files import write_if_changed
from edgekube.lib.pki import Subject, Validity

log = logging.getLogger(__name__)

ADMIN = Subject("kubernetes-admin", ("system:masters",), client=True)
KUBELET_CLIENT = Subject("kube-apiserver-kubelet-client", ("system:masters",), client=True)


@dataclass(frozen=True, slots=True)
class Pki:
    """Where everything is. The .pem files hold key and certificate: pass one path as both to `load_cert_chain`."""

    ca: Path
    authority: Path
    apiserver: Path
    admin: Path
    apiserver_kubelet_client: Path
    kubelet: Path
    kubelet_client: Path
    service_account_key: Path
    renew_at: datetime
    changed: frozenset[str]  # names of the files written by this call: listeners and kubeconfigs that use them must reload


def serving_subject(
    *, node_name: str, addresses: Sequence[str], sans: Sequence[str], cluster_domain: str, kubernetes_address: str
) -> Subject:
    """Every name and address under which clients reach the API."""
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{cluster_domain}",
        "localhost",
        node_name,
    ]
    numbers = [kubernetes_address, "127.0.0.1", "::1", *addresses]
    for san in sans:
        (numbers if _is_address(san) else names).append(san)
    return Subject("kube-apiserver", (), tuple(dict.fromkeys(filter(None, names))), _addresses(numbers), server=True)


def ensure_pki(
    folder: Path,
    *,
    node_name: str,
    addresses: Sequence[str],
    sans: Sequence[str] = (),
    now: datetime,
    cluster_domain: str = "cluster.local",
    kubernetes_address: str = "10.43.0.1",
    life: timedelta = pki.LEAF_LIFE,
) -> Pki:
    """Make what is missing, renew what is due or says something else. Call again at `renew_at` and when addresses change."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    keeper = _Keeper(folder, now, life)
    serving = serving_subject(
        node_name=node_name, addresses=addresses, sans=sans, cluster_domain=cluster_domain, kubernetes_address=kubernetes_address
    )
    node_serving = Subject(f"system:node:{node_name}", ("system:nodes",), (node_name,), _addresses(["127.0.0.1", *addresses]), server=True)
    node_client = Subject(f"system:node:{node_name}", ("system:nodes",), client=True)
    keeper.authority()
    for name, subject in (
        ("apiserver", serving),
        ("admin", ADMIN),
        ("apiserver-kubelet-client", KUBELET_CLIENT),
        ("kubelet", node_serving),
        ("kubelet-client", node_client),
    ):
        keeper.leaf(name, subject)
    keeper.signing_key()
    keeper.save()
    return Pki(
        ca=folder / "ca.crt",
        authority=folder / "ca.pem",
        apiserver=folder / "apiserver.pem",
        admin=folder / "admin.pem",
        apiserver_kubelet_client=folder / "apiserver-kubelet-client.pem",
        kubelet=folder / "kubelet.pem",
        kubelet_client=folder / "kubelet-client.pem",
        service_account_key=folder / "service-account.key",
        renew_at=keeper.renew_at,
        changed=frozenset(keeper.changed),
    )


class _Keeper:
    """One pass over the folder."""

    def __init__(self, folder: Path, now: datetime, life: timedelta) -> None:
        self._folder, self._now, self._life = folder, now, life
        self._index = _read_index(folder / "index.json")
        self._ca = b""
        self.changed: set[str] = set()
        self.renew_at = now + pki.AUTHORITY_LIFE

    def authority(self) -> None:
        path = self._folder / "ca.pem"
        data = pki.read_secret(path)
        if data is None or self._stale("ca", data, "", pki.AUTHORITY_LIFE):
            # A renewed authority keeps its key: certificates and clients that trust it stay good.
            name = f"edgekube-ca@{int(self._now.timestamp())}" if data is None else _common_name(data)
            data = pki.create_authority(name, self._now, key_pem=pki.key_pem(data) if data else b"")
            pki.write_secret(path, data)
            self._note("ca", data, "", pki.AUTHORITY_LIFE)
            hit("pki.authority")
        self._ca = data
        write_if_changed(self._folder / "ca.crt", pki.certificate_pem(data), mode=0o644)

    def leaf(self, name: str, subject: Subject) -> None:
        path = self._folder / f"{name}.pem"
        issuer = hashlib.sha256(pki.key_pem(self._ca)).hexdigest()
        fingerprint = f"{subject.fingerprint()}:{issuer}"
        data = pki.read_secret(path)
        if data is None or self._stale(name, data, fingerprint, self._life):
            data = pki.issue(self._ca, subject, self._now, life=self._life)
            pki.write_secret(path, data)
            self._note(name, data, fingerprint, self._life)
            hit("pki.leaf")

    def signing_key(self) -> None:
        path = self._folder / "service-account.key"
        if pki.read_secret(path) is None:
            pki.write_secret(path, pki.create_key())
            self.changed.add("service-account")

    def save(self) -> None:
        write_if_changed(self._folder / "index.json", json.dumps(self._index, indent=1, sort_keys=True).encode(), mode=0o600)

    def _stale(self, name: str, data: bytes, fingerprint: str, life: timedelta) -> bool:
        entry = self._index.get(name, {})
        if entry.get("digest") != hashlib.sha256(data).hexdigest():
            return self._adopt(name, data, fingerprint, life)
        if entry.get("subject") != fingerprint:
            return True
        validity = Validity(*(datetime.fromtimestamp(entry[field], UTC) for field in ("issued", "notBefore", "notAfter")))
        return self._due(validity)

    def _adopt(self, name: str, data: bytes, fingerprint: str, life: timedelta) -> bool:
        """A file that the index does not know: killed before the index was written, restored, or put there by an administrator.
        An authority is kept as it is; a leaf says too little about itself and is made anew."""
        if fingerprint:
            return True
        try:
            pki.load_key(data)
            validity = pki.validity_of(data, life=life)
        except ValueError as error:
            # Never replace an authority silently: everything that trusts it would break.
            raise ValueError(f"{self._folder / name}.pem is damaged: {error}") from error
        self._index[name] = _entry(data, fingerprint, validity)
        return self._due(validity)

    def _due(self, validity: Validity) -> bool:
        if pki.needs_renewal(validity, self._now):
            return True
        self.renew_at = min(self.renew_at, pki.renewal_of(validity))
        return False

    def _note(self, name: str, data: bytes, fingerprint: str, life: timedelta) -> None:
        validity = pki.validity_of(data, life=life)
        self._index[name] = _entry(data, fingerprint, validity)
        self._due(validity)
        self.changed.add(name)
        log.info("certificate issued", extra={"certificate": name, "until": validity.not_after.isoformat()})


def write_kubeconfig(path: Path, *, server_url: str, ca: Path, credential: Path) -> bool:
    """A kubeconfig with everything inside, mode 0600; tells whether it had to be written."""
    pem = credential.read_bytes()
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "default",
        "clusters": [{"name": "default", "cluster": {"certificate-authority-data": _b64(ca.read_bytes()), "server": server_url}}],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "users": [
            {
                "name": "default",
                "user": {"client-certificate-data": _b64(pki.certificate_pem(pem)), "client-key-data": _b64(pki.key_pem(pem))},
            }
        ],
    }
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # JSON is YAML: every reader of kubeconfigs takes it, and no YAML library is needed at start.
    return write_if_changed(path, json.dumps(text, indent=2).encode() + b"\n", mode=0o600)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _addresses(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(ipaddress.ip_address(text)) for text in texts if text))


def _common_name(pem: bytes) -> str:
    from cryptography.x509.oid import NameOID

    found = pki.load_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else "edgekube-ca"


def _entry(data: bytes, fingerprint: str, validity: Validity) -> dict[str, Any]:
    return {
        "digest": hashlib.sha256(data).hexdigest(),
        "subject": fingerprint,
        "issued": int(validity.issued.timestamp()),
        "notBefore": int(validity.not_before.timestamp()),
        "notAfter": int(validity.not_after.timestamp()),
    }


def _read_index(path: Path) -> dict[str, Mapping[str, Any]]:
    """The index, or nothing when it is missing or unreadable: it is only a shortcut."""
    try:
        index = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    wanted = ("digest", "subject", "issued", "notBefore", "notAfter")
    return {name: entry for name, entry in index.items() if isinstance(entry, dict) and all(key in entry for key in wanted)}
