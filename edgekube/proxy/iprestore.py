"""What `iptables-restore --noflush` takes and `iptables-save` tells, as data and text. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

TABLES = ("nat", "filter", "mangle")

Chains = dict[tuple[str, str], Sequence[str]]  # (table, chain) -> rules
Jump = tuple[str, str, str]  # table, built-in chain, ours


def restore_text(chains: Chains, *, gone: Iterable[tuple[str, str]] = (), insert: Iterable[Jump] = (), cut: Iterable[Jump] = ()) -> str:
    """Rewrite `chains` whole, remove `gone`, put jumps first or take them out. One transaction for each table; "" if there is nothing."""
    lines: dict[str, tuple[list[str], list[str]]] = {table: ([], []) for table in TABLES}
    for (table, chain), rules in chains.items():
        lines[table][0].append(f":{chain} - [0:0]")
        lines[table][1].extend(f"-A {chain} {rule}" for rule in rules)
    for table, built_in, chain in insert:
        lines[table][1].append(f"-I {built_in} -j {chain}")
    for table, built_in, chain in cut:
        lines[table][1].append(f"-D {built_in} -j {chain}")
    doomed = list(gone)
    for table, chain in doomed:
        lines[table][0].append(f":{chain} - [0:0]")  # empties it, so that nothing refers to another that goes
    for table, chain in doomed:
        lines[table][1].append(f"-X {chain}")
    parts = [f"*{table}\n" + "\n".join((*heads, *rules)) + "\nCOMMIT\n" for table, (heads, rules) in lines.items() if heads or rules]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Found:
    """What of ours is in the kernel: rules per chain, and jumps (as often as they are there)."""

    chains: Mapping[tuple[str, str], int]
    jumps: Mapping[Jump, int]


def look(saved: str, prefix: str) -> Found:
    """Read the output of iptables-save."""
    chains: Counter[tuple[str, str]] = Counter()
    there: Counter[Jump] = Counter()
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(f":{prefix}"):
            chains[table, line[1:].split(" ", 1)[0]] += 0
        elif line.startswith(f"-A {prefix}"):
            chains[table, line.split(" ", 2)[1]] += 1
        elif line.startswith("-A ") and f"-j {prefix}" in line:
            words = line.split()
            if len(words) == 4:
                there[table, words[1], words[3]] += 1
    return Found(chains, there)
