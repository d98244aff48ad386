"""The manifests folder: what its files declare is what the cluster has, no less and, of what they once declared, no more.

Context. k3s applies such files and forgets what it applied: what is taken out of a file stays for ever. Here the folder is a declared set.

Decision. <data-dir>/manifests/**/*.{yaml,yml,json} (not static/, whose pods are the kubelet's) are applied server-side as field manager
`edgekube-manifests`, with conflicts forced. Which objects which file declared is kept in ConfigMap kube-system/edgekube-manifests, so that
files which vanish while nobody looks are known. Objects carry the label `edgekube.io/manifests` and the annotation
`edgekube.io/manifest-file`; one that has lost the label was taken over by somebody and is never deleted.

Consequences.
- Only fields that a file sets are ours. Others may edit them: they are put back when the file changes or the server starts, not before.
- A file that is broken (YAML, unknown fields, refused by the API in a dry run) changes nothing: what it declared before stays as it is.
  So does an empty file that had declared something (power cuts leave such), and one that somebody still writes to.
- Kinds and namespaces that are not there yet are waited for; the other objects of the file do not wait.
- Of an object in two files the one that had it first holds, else the first by name; the other file gets an Event that names both.
- PersistentVolumeClaims, PersistentVolumes, CustomResourceDefinitions, and Namespaces that hold anything else are not deleted with their
  file, unless they are annotated `edgekube.io/prune: "true"`; "false" keeps any object.
- Without the folder nothing is decided; an empty one declares nothing.
"""
