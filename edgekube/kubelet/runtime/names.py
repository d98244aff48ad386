"""Names of images, whole: what Docker and Kubernetes mean by a short one (pure)."""


def expand(ref: str) -> str:
    """The whole name: `busybox` -> `docker.io/library/busybox:latest`. A digest needs no tag."""
    first, slash, _ = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif "." not in first and ":" not in first and first != "localhost":
        ref = f"docker.io/{ref}"
    elif first in ("docker.io", "index.docker.io"):
        rest = ref.split("/", 1)[1]
        ref = f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    if "@" in ref:
        name, _, digest = ref.partition("@")
        folder, separator, last = name.rpartition("/")
        return f"{folder}{separator}{last.partition(':')[0]}@{digest}"
    return ref if ":" in ref.rpartition("/")[2] else f"{ref}:latest"


def as_query(name: str) -> dict[str, str]:
    """A whole name with its tag (or, for taking it away, digest) as podman's tag and untag want it."""
    repository, _, tag = name.rpartition(":")
    return {"repo": repository, "tag": tag}
