"""A server that loses power while it is written to: whatever it acknowledged is there afterwards, and its pods come back by themselves.

EDGEKUBE_VM_CUTS says how often (2). A cut is SIGKILL for QEMU: what the guest did not flush to its disk is gone.
"""

import base64
import functools
import http.client
import itertools
import json
import os
import random
import ssl
import threading
import time

import pytest
import yaml

from tests.vm.lab import lab, short_folder
from tests.vm.product import Site, deployment, eventually

CUTS = int(os.environ.get("EDGEKUBE_VM_CUTS", "2"))
WRITERS = 4


class Writers:
    """Threads on this host that create and change ConfigMaps until the line is dead, and keep what was acknowledged."""

    def __init__(self, site):
        self.acknowledged = {}  # name -> the last value whose write was answered with success
        self._asked = {}  # name -> the last value that was asked for: a write without an answer may or may not be there
        self._site = site
        self._stop = threading.Event()
        self._numbers = itertools.count()
        config = yaml.safe_load(site.kubeconfig.read_text())
        user = config["users"][0]["user"]
        for name, key in (("cert", "client-certificate-data"), ("key", "client-key-data")):
            (site.folder / name).write_bytes(base64.b64decode(user[key]))
        authority = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        self._tls.load_cert_chain(site.folder / "cert", site.folder / "key")

    def __enter__(self):
        self._stop.clear()
        self._threads = [threading.Thread(target=self._write) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more):
        """Until so many more objects were acknowledged."""
        goal = len(self.acknowledged) + more
        eventually(lambda: len(self.acknowledged) >= goal, pause=0.1)

    def possible(self, name, value):
        """Whether that is what may be there: the last acknowledged value or one asked for after it."""
        return self.acknowledged[name] <= value <= self._asked[name]

    def _write(self):
        line = http.client.HTTPSConnection("127.0.0.1", self._site.server.door, context=self._tls, timeout=20)
        try:
            while not self._stop.is_set():
                name = f"written-{next(self._numbers)}"
                for value in range(3):
                    self._asked[name] = value
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": str(value)}}
                    path = "/api/v1/namespaces/default/configmaps"
                    line.request("POST" if value == 0 else "PUT", path if value == 0 else f"{path}/{name}", json.dumps(body))
                    answer = line.getresponse()
                    answer.read()
                    assert answer.status in (200, 201), answer.status
                    self.acknowledged[name] = value
        except (OSError, http.client.HTTPException):
            pass  # the power is gone; that write was not acknowledged
        finally:
            line.close()


@pytest.fixture(scope="module")
def site():
    with short_folder() as folder, lab(folder, 1) as machines:
        made = Site(folder, machines)
        made.install_server()
        made.apply(deployment(replicas=2))
        eventually(lambda: made.all_ready(2))
        yield made


def test_what_was_acknowledged_survives_power_cuts_and_pods_come_back(site, capsys):
    pods = site.pods()
    writers = Writers(site)
    for number in range(CUTS):
        before = pods
        with writers:
            writers.wait_for(20)
            time.sleep(random.uniform(0, 3))  # anywhere in the middle of things
            site.server.cut()
        cut = time.monotonic()
        site.server.start()
        site.server.wait()
        booted = time.monotonic() - cut
        found = eventually(lambda: {one["metadata"]["name"]: one["data"] for one in site.get("configmaps")["items"]})
        lost = [name for name in writers.acknowledged if name not in found]
        old = [name for name, data in found.items() if name in writers.acknowledged and not writers.possible(name, int(data["value"]))]
        assert not lost, f"cut {number}: acknowledged and gone"
        assert not old, f"cut {number}: older than acknowledged"
        pods = eventually(functools.partial(site.all_ready, 2, since=before), patience=600)
        assert {pod[0] for pod in pods} == {pod[0] for pod in before}
        with capsys.disabled():
            print(f"\ncut {number}: {len(writers.acknowledged)} objects acknowledged so far, none lost; up after {booted:.0f} s, all pods Ready after {time.monotonic() - cut:.0f} s")
