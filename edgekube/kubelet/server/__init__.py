"""The node's own HTTPS API (port 10250): logs, exec, attach, port-forward, pods and usage, for the API server and for monitoring."""
