"""edgekube: a Kubernetes distribution in one file for small Linux hosts.

The layers, each importing only what stands below it (checked by import-linter):

    __main__ > cli > app > apiserver controllers scheduler kubelet network proxy netpolicy dns agent
      > client > api > store errors config > lib

Components of one line never import each other: they meet through API objects, each with its own `Client` and identity.
"""

__version__ = "0.1.0"

KUBERNETES_VERSION = "v1.36.0"
