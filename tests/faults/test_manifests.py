"""The manifests folder under SIGKILL: whatever moment the server dies at, after the next start the cluster equals the folder."""

import contextlib
import random

from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "kubectl")
ROUNDS, NAMES = 8, [f"m{number}" for number in range(12)]


def test_killed_at_any_moment_it_ends_as_the_folder_says():
    random.seed(36)
    with cluster("--disable-agent", "--disable-discovery") as server:
        folder = server.data / "manifests"
        for _ in range(ROUNDS):
            wanted = shuffle(folder)
            line = random.choice(["manifests applied", "object deleted", "edgekube is ready", "nothing of the kind"])
            if server.process is None:
                server.start(wait=False)
            seen = server.log_text().count(line)
            with contextlib.suppress(AssertionError):  # else killed by the clock, not at a known place
                wait_until(lambda line=line, seen=seen: server.log_text().count(line) > seen, seconds=random.uniform(0.3, 2.5))
            server.kill()
            wanted = shuffle(folder) if random.random() < 0.5 else wanted
            server.start()
            wait_until(lambda wanted=wanted: found(server) == wanted, seconds=10, what=f"{wanted}")


def shuffle(folder):
    """Spread the names over files anew; some are in none. Returns name -> value."""
    for path in folder.glob("*.yaml"):
        path.unlink()
    wanted = {name: str(random.randrange(100)) for name in NAMES if random.random() < 0.7}
    files = {}
    for name, value in wanted.items():
        text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: '{value}'}}\n"
        files.setdefault(random.choice("abc"), []).append(text)
    for name, documents in files.items():
        (folder / f"{name}.yaml").write_text("---\n".join(documents))
    return wanted


def found(server):
    items = server.get("configmaps", "-n", "default", "-l", "edgekube.io/manifests")["items"]
    return {item["metadata"]["name"]: item["data"]["value"] for item in items}
