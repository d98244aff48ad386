#!/bin/sh
# Is what `vagrant up` made a cluster? Ends with the first thing that is not so. Needs kubectl; takes some minutes without KVM.
#
#   vagrant/smoke.sh                     pods run docker.io/library/busybox, which every node pulls
#   vagrant/smoke.sh IMAGE.tar [NAME]    without a registry: the archive is imported on every node; NAME is the image in it
#
# Nodes Ready; a pod on every node; Service, DNS and traffic between nodes; logs and exec; an agent reboots and its pod comes back.
set -eu

archive=${1:-} image=${2:-docker.io/library/busybox:latest}
[ -z "$archive" ] || archive=$(realpath "$archive")
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
began=$(date +%s)

say() { echo "smoke: $(($(date +%s) - began)) s: $*"; }
fail() { echo "smoke: FAILED: $*" >&2; exit 1; }
kc() { timeout 90 kubectl --kubeconfig "$work/kubeconfig.yaml" "$@"; }
on() { name=$1 && shift && vagrant ssh "$name" -c "$*" -- -q </dev/null; }

eventually() {
    # $1: what is wanted, in words; the rest: a command that succeeds once it is so.
    what=$1 end=$(($(date +%s) + 300))
    shift
    until "$@" >"$work/last" 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || { tail -n 5 "$work/last" >&2; kc get nodes,pods -o wide >&2 || true; fail "$what"; }
        sleep 2
    done
    say "$what"
}

machines=$(vagrant status --machine-readable | awk -F, '$3 == "state" && $4 == "running" { print $2 }')
count=$(echo "$machines" | wc -w)
[ "$count" -ge 2 ] || fail "a server and at least one agent must be up: vagrant up"
address=${EDGEKUBE_NETWORK:-10.78.0}.10
on server sudo edgekube kubeconfig | sed "s/127\.0\.0\.1/$address/" >"$work/kubeconfig.yaml"
say "$count machines are up, the server is $address"

if [ -n "$archive" ]; then
    for machine in $machines; do
        vagrant upload "$archive" /tmp/smoke-image.tar "$machine" >/dev/null
        on "$machine" sudo edgekube images import /tmp/smoke-image.tar >/dev/null
    done
    say "the image is on every node"
fi

all_ready() { [ "$(kc get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = "$count" ]; }
eventually "all $count nodes are Ready" all_ready

kc delete --ignore-not-found --wait=true deployment/smoke service/smoke >/dev/null
kc apply -f - >/dev/null <<END
apiVersion: apps/v1
kind: Deployment
metadata: {name: smoke}
spec:
  replicas: $count
  selector: {matchLabels: {app: smoke}}
  template:
    metadata: {labels: {app: smoke}}
    spec:
      terminationGracePeriodSeconds: 2
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: smoke}}}
      containers:
      - name: web
        image: $image
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'mkdir -p /www; hostname > /www/index.html; echo serving; exec httpd -f -p 8080 -h /www']
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 2, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: smoke}
spec:
  type: NodePort
  selector: {app: smoke}
  ports: [{port: 80, targetPort: 8080}]
END
rolled_out() { kc rollout status deployment/smoke --timeout=5s; }
eventually "a pod runs on every node" rolled_out

pods() { kc get pods -l app=smoke -o 'jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}'; }
answers() { [ "$(kc exec "$1" -- wget -qO- "http://$2:8080/index.html")" = "$3" ]; }
resolves() { kc exec "$1" -- wget -qO- http://smoke.default.svc.cluster.local/index.html | grep -q smoke-; }
logged() { kc logs "$1" | grep -q serving; }
network_works() {
    pods >"$work/pods"
    [ "$(wc -l <"$work/pods")" = "$count" ]
    while read -r from _; do
        while read -r to ip; do
            eventually "$from reaches $to at $ip" answers "$from" "$ip" "$to"
        done <"$work/pods"
        eventually "$from finds the Service by name" resolves "$from"
    done <"$work/pods"
}
network_works
while read -r pod _; do eventually "logs of $pod" logged "$pod"; done <"$work/pods"

port=$(kc get service smoke -o 'jsonpath={.spec.ports[0].nodePort}')
for machine in $machines; do
    outside() { on "$machine" "bash -c 'exec 3<>/dev/tcp/$address/$port; printf \"GET /index.html HTTP/1.0\r\n\r\n\" >&3; cat <&3'" | grep -q smoke-; }
    eventually "$machine reaches the node port" outside
done

agent=$(echo "$machines" | grep -v '^server$' | head -n 1)
boot=$(on "$agent" cat /proc/sys/kernel/random/boot_id | tr -d '\r')
on "$agent" "sudo systemd-run --quiet --on-active=1 systemctl reboot"
booted() { new=$(on "$agent" cat /proc/sys/kernel/random/boot_id | tr -d '\r') && [ -n "$new" ] && [ "$new" != "$boot" ]; }
eventually "$agent has rebooted" booted
eventually "all $count nodes are Ready again" all_ready
before=$(cut -d' ' -f1 <"$work/pods" | sort)
eventually "its pod is Ready again" rolled_out
network_works
[ "$(cut -d' ' -f1 <"$work/pods" | sort)" = "$before" ] || fail "pods were replaced by the reboot"
kc delete --wait=false deployment/smoke service/smoke >/dev/null
say "all is well"
