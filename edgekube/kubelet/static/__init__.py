"""Static pods: files on this node's disk that are pods, with or without a server.

    manifest   a file -> a pod of this node, or why not. Pure
    source     the folder -> pods, as files come, change and go
    mirrors    what the API shows of them: a mirror pod each, made again when somebody deletes it

    pods       which of them run, and where their status goes

A static pod refers to nothing of the API, so it needs none.
Upstream: pkg/kubelet/config/file.go, pkg/kubelet/config/common.go, pkg/kubelet/pod/mirror_client.go.
"""
