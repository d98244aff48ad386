"""The only way for a component to see the cluster: a `Client` (in process, over HTTPS, or remembered), and caches built on it.

All implementations keep one contract suite (tests/contract/client.py): same errors, same behaviour. Components hold a Client with
an identity of their own, which RBAC checks.
"""
