#!/bin/sh
# Install what the tests need, then run all of them: style, types, import contracts, tests.
#
#   tests/run.sh              everything that this machine can run; what it cannot is named at the end
#   tests/run.sh -k watch     further arguments go to pytest (and only pytest runs)
#   tests/run.sh --vm         the tests in machines of their own, with systemd and cgroup v2 (QEMU; an hour, 2.6 GiB of memory, 3 of disk).
#                             EDGEKUBE_BINARY names a built file; EDGEKUBE_VM_CUTS=20 EDGEKUBE_VM_SOAK=600 are the long way
#
# A test that fails is run once more at the end, by itself; one that passes only then is named all the same, and wants a look.
#
# As root on Debian 12/13 or Ubuntu: containers, network namespaces and nftables are real. EDGEKUBE_REQUIRE=podman,netns makes a missing
# thing a failure instead of a skip.
set -eu
cd "$(dirname "$0")/.."

PACKAGES="podman conmon crun runc nftables libnftables1 iptables iproute2 python3 python3-venv busybox-static ca-certificates shellcheck wrk strace conntrack"
# What the binary is built with (packaging/build.py); elsewhere those tests are left out, or EDGEKUBE_BINARY names a built file.
if grep -qs bookworm /etc/os-release; then PACKAGES="$PACKAGES libpython3.11 binutils gcc libc6-dev libzstd-dev zstd"; fi

if [ "${1:-}" = --vm ]; then
    shift
    PACKAGES="$PACKAGES qemu-system-x86 qemu-utils vde-switch debootstrap e2fsprogs kmod cpio"
    [ -n "${EDGEKUBE_BINARY:-}" ] || PACKAGES="$PACKAGES libpython3.11 binutils gcc libc6-dev libzstd-dev zstd"
    export EDGEKUBE_VM=1 EDGEKUBE_REQUIRE="${EDGEKUBE_REQUIRE:-root,qemu,kubectl,busybox}"
    set -- tests/vm -o faulthandler_timeout=3600 "$@"
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=""
    for package in $PACKAGES; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
    done
    command -v kubectl >/dev/null || missing="$missing kubernetes-client"
    if [ -n "$missing" ]; then
        echo "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086  # a list of words on purpose
        apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $missing >/dev/null
    fi
fi

[ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'

if [ $# -gt 0 ]; then exec .venv/bin/python -m pytest "$@"; fi

.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/lint-imports
.venv/bin/python -m pytest -q && exit 0 || code=$?
[ "$code" = 1 ] || exit "$code"
# Wires, power cuts and clocks on a machine that others use too: what fails is asked once more, alone, and told. It must pass then.
echo "FAILED AT FIRST (listed above), run once more:"
exec .venv/bin/python -m pytest -q --last-failed
