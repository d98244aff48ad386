#!/bin/sh
# Install edgekube from this checkout and start a cluster, or join one. Running it again upgrades, and starts what was stopped.
#
#   packaging/install.sh [server] [flags for `edgekube server`...]
#   packaging/install.sh agent --server https://HOST:6443 --token TOKEN [flags for `edgekube agent`...]
#
# Needs root on Debian 12/13 or Ubuntu 22.04+, the distribution's packages and PyPI. Installs what is missing, makes a Python
# environment of its own in /usr/local/lib/edgekube, puts `edgekube` on the PATH, and returns when the node is ready.
# With systemd it is the service `edgekube` or `edgekube-agent`; without, a background process (log: /var/log/edgekube.log).
# A token is kept in a file for root only, and only until this machine has joined.
set -eu

HERE=$(cd "$(dirname "$0")/.." && pwd)
HOME_DIR=/usr/local/lib/edgekube
LAUNCHER=/usr/local/bin/edgekube
LOG=/var/log/edgekube.log
ENV_FILE=/etc/edgekube/edgekube.env
TOKEN_FILE=/etc/edgekube/join-token
PACKAGES="podman conmon crun runc nftables libnftables1 iproute2 python3 python3-venv ca-certificates"

say() { echo "edgekube: $*"; }
fail() { echo "edgekube: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "installing needs root: run it with sudo"
[ "$(uname -s)" = Linux ] || fail "edgekube runs on Linux only"
[ -f "$HERE/pyproject.toml" ] || fail "$HERE is not a checkout of edgekube"

install_packages() {
    missing=""
    for package in $PACKAGES; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of words on purpose
    apt-get install -y -q --no-install-recommends $missing >/tmp/edgekube-apt.log 2>&1 ||
        { apt-get update -q >>/tmp/edgekube-apt.log 2>&1 && apt-get install -y -q --no-install-recommends $missing >>/tmp/edgekube-apt.log 2>&1; } ||
        { tail -n 5 /tmp/edgekube-apt.log >&2; fail "the packages$missing could not be installed"; }
    rm -f /tmp/edgekube-apt.log
}

install_program() {
    # Built aside and moved into place: a broken download leaves the running version alone.
    stamp=$(cd "$HERE" && find edgekube pyproject.toml -type f ! -name '*.pyc' -exec sha256sum {} + | sort | sha256sum | cut -c1-16)
    target="$HOME_DIR/$stamp"
    if [ ! -x "$target/bin/edgekube" ]; then
        say "installing the program"
        rm -rf "$target"
        mkdir -p "$HOME_DIR"
        /usr/bin/python3 -m venv "$target" || fail "python3 -m venv failed"
        "$target/bin/python" -m pip install -q --disable-pip-version-check "$HERE" ||
            { rm -rf "$target"; fail "the program could not be installed from $HERE"; }
    fi
    ln -sfn "$target/bin/edgekube" "$LAUNCHER.new"
    mv -Tf "$LAUNCHER.new" "$LAUNCHER"
}

remove_old_programs() {
    # Only after the new one has started: until it is stopped, the old one still reads its files.
    for old in "$HOME_DIR"/*; do
        [ "$old" = "$target" ] || rm -rf "$old"
    done
}

check_flags() {
    # What runs is left alone if the flags are wrong: 2 is wrong usage, 1 is "not ready yet".
    # shellcheck disable=SC2086  # the flags, as words
    "$LAUNCHER" status --quiet $1 || [ $? = 1 ] || fail "these flags are not known:$1"
    # shellcheck disable=SC2086  # the flags, as words
    found=$("$LAUNCHER" check --as "$role" $1) || fail "this machine can not be made ${role_text}:
$(echo "$found" | grep -A 1 FAIL)"
}

start_with_systemd() {
    sed "s|^ExecStart=.*|ExecStart=$LAUNCHER $role$1|" "$HERE/systemd/$unit.service" >"/etc/systemd/system/$unit.service"
    systemctl daemon-reload
    systemctl enable -q "$unit.service"
    systemctl restart "$unit.service" || fail "the service did not start: see journalctl -u $unit"
    # shellcheck disable=SC2086  # the flags, as words
    "$LAUNCHER" status --wait 60 --node --quiet $1 || fail "the node did not become ready: see journalctl -u $unit"
}

start_in_background() {
    "$LAUNCHER" stop >/dev/null 2>&1 || true
    # shellcheck disable=SC2086  # the flags, as words
    setsid nohup "$LAUNCHER" "$role" $1 >>"$LOG" 2>&1 </dev/null &
    process=$!
    tries=0
    # shellcheck disable=SC2086  # the flags, as words
    until "$LAUNCHER" status --wait 2 --node --quiet $1; do
        tries=$((tries + 1))
        if [ $tries -ge 30 ] || ! kill -0 $process 2>/dev/null; then
            tail -n 3 "$LOG" >&2
            fail "the node did not become ready: see $LOG"
        fi
    done
}

keep_token() {
    # Not on the command line, which everybody can read.
    (umask 077 && mkdir -p /etc/edgekube && printf '%s\n' "$1" >"$TOKEN_FILE")
}

role=server
case "${1:-}" in server | agent) role=$1 && shift ;; esac
if [ "$role" = agent ]; then
    unit=edgekube-agent role_text="an agent"
else
    unit=edgekube role_text="a server"
fi
flags="" token=""
while [ $# -gt 0 ]; do
    case "$1" in
    --token) token=${2:-} && shift ;;
    --token=*) token=${1#--token=} ;;
    *) flags="$flags $1" ;;
    esac
    [ $# -eq 0 ] || shift
done
install_packages
install_program
check_flags "$flags"
mkdir -p /etc/edgekube
[ -f "$ENV_FILE" ] || : >"$ENV_FILE"
if [ -n "$token" ]; then
    keep_token "$token"
    flags="$flags --token-file=$TOKEN_FILE"
fi
if [ -d /run/systemd/system ]; then start_with_systemd "$flags"; else start_in_background "$flags"; fi
rm -f "$TOKEN_FILE"
remove_old_programs
if [ "$role" = agent ]; then
    say "this machine is a node of the cluster: see it with 'kubectl get nodes' on the server"
else
    say "the cluster is ready: try 'edgekube kubectl get nodes', or 'export KUBECONFIG=/etc/edgekube/kubeconfig.yaml'"
fi
