"""Who this node is: its name, its key and its certificates, in one folder for root only.

    node.json     its name, its servers and addresses               node.key      its key, for life
    ca.crt        the authority of its cluster                       client.crt    system:node:NAME, towards the API
    serving.crt   the certificate of its own API                     state, state.key   what it remembers of the cluster

One key for both certificates, so that no certificate file ever needs to be swapped together with a key. Each file is written whole or
not at all. What a disk damages all the same: client.crt is made again by proof of the key, serving.crt by asking for one (renewal.py);
ca.crt takes a token; the key is beyond repair.
"""

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.agent.refusal import IdentityDamaged
from edgekube.lib import pki
from edgekube.lib.files import write_if_changed


@dataclass(frozen=True, slots=True)
class Identity:
    """A node that has joined."""

    folder: Path
    name: str
    servers: Sequence[str]  # https://HOST:PORT
    addresses: Sequence[str] = ()  # of this machine, as serving.crt says them

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "node.key"

    @property
    def client(self) -> Path:
        return self.folder / "client.crt"

    @property
    def state(self) -> Path:
        """What is remembered of the cluster, encrypted (client/shadowstore.py)."""
        return self.folder / "state"

    @property
    def state_key(self) -> Path:
        return self.folder / "state.key"

    @property
    def serving(self) -> Path:
        return self.folder / "serving.crt"


def save(identity: Identity) -> bool:
    """Write the name, servers and addresses; tells whether it had to."""
    data = {"name": identity.name, "servers": list(identity.servers), "addresses": list(identity.addresses)}
    return write_if_changed(identity.folder / "node.json", json.dumps(data, indent=1).encode() + b"\n", mode=0o600)


def load(folder: Path) -> Identity | None:
    """The identity as far as it is there: None if this machine has not even a name yet. Raises IdentityDamaged."""
    path = folder / "node.json"
    try:
        found = json.loads(path.read_bytes())
        return Identity(folder, str(found["name"]), tuple(map(str, found["servers"])), tuple(map(str, found.get("addresses", ()))))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityDamaged(f"{path} is damaged ({error}): run edgekube uninstall and join this machine again") from error


def joined(identity: Identity) -> bool:
    """Whether everything is there that a node needs: no token is used any more. The last step of joining makes serving.crt."""
    return all(path.exists() for path in (identity.key, identity.serving)) and knows_authority(identity)


def knows_authority(identity: Identity) -> bool:
    """Whether ca.crt is there and can be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(identity.ca)
    except (FileNotFoundError, ssl.SSLError):
        return False
    return True


def examine_key(identity: Identity) -> None:
    """Raises IdentityDamaged if the key can not be used, or is gone from a machine that had a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in (identity.client, identity.serving):
        try:
            context.load_cert_chain(path, identity.key)
        except OSError:  # of either of the two
            continue
        return
    try:
        pki.load_key(identity.key.read_bytes())
    except (OSError, ValueError) as error:
        what = f"is damaged ({type(error).__name__})" if identity.key.exists() else "is gone"
        fix = f"run edgekube uninstall, and join again with a token from edgekube token create --node-name {identity.name}"
        raise IdentityDamaged(f"{identity.key} {what}: {fix}") from error
