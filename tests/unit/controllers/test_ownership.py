"""The fate of an object by its owners."""

import pytest

from edgekube.controllers.ownership import Fate, Owner, blocks, plan_fate

S, D, W = Owner.SOLID, Owner.DANGLING, Owner.WAITING


@pytest.mark.parametrize(
    ("owners", "dependents", "circle", "finalizers", "fate"),
    [
        ({}, False, False, (), Fate()),
        ({"a": S}, False, False, (), Fate()),
        ({"a": S, "b": D, "c": W}, True, False, (), Fate(drop=("b", "c"))),
        ({"a": D}, False, False, (), Fate(policy="Background")),
        ({"a": D}, True, False, (), Fate(policy="Background")),
        ({"a": D}, False, False, ("orphan",), Fate(policy="Orphan")),
        ({"a": D}, False, False, ("foregroundDeletion",), Fate(policy="Foreground")),
        ({"a": W}, False, False, (), Fate(policy="Background")),
        ({"a": W}, True, False, (), Fate(policy="Foreground")),
        ({"a": W, "b": D}, True, True, (), Fate(policy="Foreground", unblock=True)),
    ],
)
def test_fate(owners, dependents, circle, finalizers, fate):
    assert plan_fate(owners, has_dependents=dependents, in_circle=circle, finalizers=finalizers) == fate


def test_only_a_blocking_reference_blocks():
    dependent = {"metadata": {"ownerReferences": [{"uid": "a", "blockOwnerDeletion": True}, {"uid": "b"}]}}
    assert [blocks(dependent, uid) for uid in ("a", "b", "c")] == [True, False, False]
