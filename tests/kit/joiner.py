"""A machine that joins, as a small program: `python -m tests.kit.joiner SERVER TOKEN NAME FOLDER`, run in any network namespace.

Does what an agent does and no more: reads the authority, compares it with the token, asks for a client certificate, waits for the answer.
Prints one JSON object: {"certificate": "..."} or {"denied": reason, "message": ...} or {"error": ...}. The key stays in FOLDER.
"""

import base64
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from edgekube.api import bootstraptokens
from edgekube.lib import csr, pki
from edgekube.lib.pki import Subject

_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def ask(url, context, *, token="", body=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def join(server, token, name, folder, seconds=20.0):
    folder.mkdir(exist_ok=True)
    digest, bearer = bootstraptokens.parse_join_token(token)
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    authority = ask(f"{server}/cacerts", blind)[1]
    if bootstraptokens.authority_digest(authority) != digest:
        return {"error": "another authority"}
    context = ssl.create_default_context(cadata=authority.decode())
    key = folder / "key.pem"
    if not key.exists():
        key.write_bytes(pki.create_key())
    request = base64.b64encode(csr.make(key.read_bytes(), Subject(f"system:node:{name}", ("system:nodes",)))).decode()
    spec = {"request": request, "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["digital signature", "client auth"]}
    status, answer = ask(server + _REQUESTS, context, token=bearer, body={"metadata": {"generateName": "node-"}, "spec": spec})
    if status != 201:
        return {"error": json.loads(answer)["message"]}
    path = f"{server}{_REQUESTS}/{json.loads(answer)['metadata']['name']}"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status, answer = ask(path, context, token=bearer)
        found = json.loads(answer).get("status", {})
        denied = next((one for one in found.get("conditions", ()) if one["type"] == "Denied"), None)
        if denied:
            return {"denied": denied["reason"], "message": denied["message"]}
        if found.get("certificate"):
            certificate = base64.b64decode(found["certificate"])
            (folder / "client.pem").write_bytes(key.read_bytes() + certificate)
            return {"certificate": certificate.decode()}
        time.sleep(0.05)
    return {"error": "no answer"}


if __name__ == "__main__":
    try:
        print(json.dumps(join(*sys.argv[1:4], Path(sys.argv[4]))))
    except OSError as error:
        print(json.dumps({"error": str(error)}))
