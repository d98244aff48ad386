"""Manifests the end-to-end tests apply."""

IMAGE = "docker.io/library/busybox:test"

SERVE = "mkdir -p /tmp/www; hostname > /tmp/www/index.html; {extra}exec httpd -f -p 8080 -h /tmp/www"


def web(replicas: int = 3, *, version: str = "1", extra: str = "") -> str:
    """A Deployment with a readiness probe and a ConfigMap volume, and a Service with ClusterIP and NodePort."""
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{greeting: hello}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}, annotations: {{version: "{version}"}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: web
        image: {IMAGE}
        command: [sh, -c, "{SERVE.format(extra=extra)}"]
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{exec: {{command: [sleep, "1"]}}}}}}
        volumeMounts: [{{name: settings, mountPath: /settings}}]
      volumes:
      - name: settings
        configMap: {{name: settings}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"""


def pod(name: str, command: str, *, spec: str = "", container: str = "") -> str:
    """One busybox pod; `spec` and `container` are more YAML lines (flow style) for those levels."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  {spec}
  containers:
  - name: main
    image: {IMAGE}
    command: [sh, -c, {command!r}]
    {container}
"""
