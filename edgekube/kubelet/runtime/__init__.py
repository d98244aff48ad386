"""Containers, sandboxes, images and logs of this node. `protocol.py` is what the kubelet sees; `podman.py` is what does it."""
