"""What a machine looks like from all sides, to compare before and after: an empty difference means nothing was left."""

# Each part is a shell line whose output is compared as a set of lines. What the system itself moves all the time is left out.
PARTS = {
    "files": "find / -xdev -not -path '/var/log/journal/*' -not -path '/root*' -not -path '/tmp*' -not -path '/var/tmp*' -not -path '/var/lib/systemd/*' "
    "-not -path '/run/*' -printf '%y %m %u %g %p %l\\n' | sort",
    "texts": "find /etc /usr/local /var/spool -xdev -type f -exec sha256sum {} + | sort -k2",
    "runtime": "find /run -xdev \\( -name '*edgekube*' -o -name '*podman*' -o -name '*crun*' -o -name '*libpod*' \\) | sort",
    "nft": "nft list ruleset 2>/dev/null; true",
    "iptables": "iptables-save 2>/dev/null | grep -v -e '^#' -e '^:' ; ipvsadm -Ln 2>/dev/null | tail -n +4; true",
    "links": "ip -o link | sed 's/^[0-9]*: //'",
    "addresses": "ip -o addr | sed 's/^[0-9]*: //; s/valid_lft.*//'",
    "routes": "ip route show table all; ip -6 route show table all; ip rule; ip -6 rule",
    "mounts": "awk '{print $1, $2, $3, $4}' /proc/mounts | grep -v /run/credentials | sort",
    "sysctls": "sysctl -a 2>/dev/null | grep -v -E 'kernel.random|file-nr|inode|dentry|ns_last_pid|conntrack_count|stable_secret|cpu_max|cad_pid|pty.nr|usage|"
    "sched_domain|perf_|lost_events|keys' | sort",
    "units": "systemctl list-unit-files --no-legend | sort; systemctl list-units --no-legend --plain --all '*edgekube*' '*podman*' '*libpod*' | sort",
    "cgroups": "find /sys/fs/cgroup -type d \\( -name '*kubepods*' -o -name '*libpod*' -o -name '*edgekube*' \\)",
    "processes": "ps -eo args --no-headers | grep -E 'edgekube|conmon|podman|pause' | grep -v -e 'sh -c' -e grep; true",
    "users": "cat /etc/passwd /etc/group",
}


def picture(vm):
    """Each part's lines."""
    return {part: vm.run(line, patience=600).splitlines() for part, line in PARTS.items()}


PACKAGES = {"files", "texts", "units", "users", "sysctls"}  # what installing the distribution's packages changes too


def difference(before, after, *, without=frozenset()):
    """Lines that came (+) and went (-), by part; empty if there are none."""
    found = {}
    for part, lines in after.items():
        if part in without:
            continue
        old = before[part]
        if part == "sysctls":  # a module that was loaded brings new ones; it is values that are changed
            known = {line.partition(" = ")[0] for line in old}
            lines = [line for line in lines if line.partition(" = ")[0] in known]
        changed = [f"+{line}" for line in lines if line not in set(old)] + [f"-{line}" for line in old if line not in set(lines)]
        if changed:
            found[part] = changed
    return found
