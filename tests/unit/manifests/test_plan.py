"""Which file has which object, what is applied in which order, and what goes. In: plans and the record. Out: the API."""

import pytest

from edgekube.manifests.files import File, Ref
from edgekube.manifests.plan import EMPTY, Entry, plan_sync, record_of, union
from edgekube.manifests.record import decoded, encoded

A, B, C = (Ref("", "ConfigMap", "default", name) for name in "abc")
NS, HOOK, DEPLOY = Ref("", "Namespace", "", "n"), Ref("x", "ValidatingWebhookConfiguration", "", "h"), Ref("apps", "Deployment", "n", "d")


def file(*refs, sha="new", problem="", busy=False, text=""):
    return File(sha, {ref: {"name": ref.name} for ref in refs}, problem, busy, text)


def entry(*refs, sha="old"):
    return Entry(sha, frozenset(refs))


def outcome(files, record):
    plan = plan_sync(files, record)
    return [(ref.name, name) for ref, name, _ in plan.apply], [ref.name for ref in plan.prune]


@pytest.mark.parametrize(
    ("files", "record", "applied", "pruned"),
    [
        ({"1": file(A, B)}, {}, [("a", "1"), ("b", "1")], []),
        ({"1": file(A)}, {"1": entry(A, B)}, [("a", "1")], ["b"]),
        ({}, {"1": entry(A, B)}, [], ["a", "b"]),
        ({"2": file(A)}, {"1": entry(A)}, [("a", "2")], []),
        ({"1": file(A), "2": file(B)}, {"1": entry(A, B)}, [("a", "1"), ("b", "2")], []),
        ({"1": file(A), "2": file(A)}, {}, [("a", "1")], []),
        ({"1": file(A), "2": file(A)}, {"2": entry(A)}, [("a", "2")], []),
        ({"1": file(problem="broken")}, {"1": entry(A)}, [], []),
        ({"1": file(busy=True)}, {"1": entry(A), "2": entry(B)}, [], []),
        ({"1": file(sha=EMPTY)}, {"1": entry(A)}, [], []),
        ({"1": file()}, {"1": entry(A)}, [], ["a"]),
        ({"1": file(A), "2": file(problem="broken", text="name: b")}, {"1": entry(A, B, C)}, [("a", "1")], ["c"]),
    ],
)
def test_what_is_applied_and_what_goes(files, record, applied, pruned):
    assert outcome(files, record) == (applied, pruned)


def test_namespaces_come_first_and_go_last():
    assert outcome({"1": file(HOOK, DEPLOY, A, NS)}, {})[0] == [("n", "1"), ("a", "1"), ("d", "1"), ("h", "1")]
    assert outcome({}, {"1": entry(HOOK, DEPLOY, A, NS)})[1] == ["h", "d", "a", "n"]


def test_troubles_name_both_files():
    plan = plan_sync({"1": file(A), "2": file(A), "3": file(sha=EMPTY)}, {"3": entry(B)})
    assert plan.troubles == {
        "2": "ConfigMap default/a is declared by 1 already; this file's is not used",
        "3": "the file is empty: what it declared is kept; delete the file to remove that",
    }


def test_what_is_remembered():
    files, record = {"1": file(A), "2": file(problem="x")}, {"1": entry(A, B), "2": entry(C)}
    plan = plan_sync(files, record)
    assert record_of(plan, files, record, []) == {"1": entry(A, sha="new"), "2": entry(C)}
    assert record_of(plan, files, record, [B]) == {"1": entry(A, B, sha="new"), "2": entry(C)}
    assert union({"1": entry(A)}, {"1": entry(B, sha="x"), "2": entry(C)}) == {"1": entry(A, B), "2": entry(C)}


def test_what_is_held_back_stays_with_the_file_it_was_of():
    files, record = {"2": file(problem="x", text="b")}, {"1": entry(B)}
    assert record_of(plan_sync(files, record), files, record, []) == {"1": entry(B)}


def test_the_record_as_text():
    record = {"a/b.yaml": entry(A, NS), "c.yaml": entry(B)}
    assert decoded(encoded(record)) == record
    for bad in ("[]", '{"a": 1}', "{"):
        with pytest.raises(ValueError, match="."):
            decoded(bad)
