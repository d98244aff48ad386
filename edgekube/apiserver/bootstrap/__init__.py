"""What a cluster has from its first second: roles and bindings, namespaces, priority classes, the `kubernetes` and `kube-dns` Services.

`policy` is the data, `objects` turns data into objects, `reconcile` brings the store to that state: everything missing in one
group-committed batch at the first start, nothing at all at the next.
"""
