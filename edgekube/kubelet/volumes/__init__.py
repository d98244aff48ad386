"""What pods mount. Each kind of volume is one file; `manager` chooses, prepares, updates and removes them.

data-dir/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>      as upstream, so that people find things
data-dir/pods/<uid>/volume-subpaths/<volume>/<container>/<i>    bind mounts of subPaths
"""
