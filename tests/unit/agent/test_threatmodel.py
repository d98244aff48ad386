"""Every claim of the threat model has tests, and they exist."""

import re
from pathlib import Path

import edgekube.agent

TESTS = Path(__file__).parents[2]
MODEL = (edgekube.agent.__doc__ or "").partition("THREAT MODEL")[2]


def test_every_claim_has_its_tests() -> None:
    claims = re.split(r"^ ?(?=\d+  \w)", MODEL, flags=re.MULTILINE)[1:]
    assert [int(claim.split()[0]) for claim in claims] == list(range(1, len(claims) + 1))
    assert len(claims) > 20
    for claim in claims:
        named = re.findall(r"(\S+\.py)::(test_\w+)", claim)
        assert named, claim
        for file, test in named:
            assert re.search(rf"def {test}\(", (TESTS / file).read_text()), f"{file} has no {test}"
