"""Label selectors: grammar, refusals, matching."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api import selectors
from edgekube.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "shown", "yes", "no"),
    [
        ("a=b", "a=b", {"a": "b"}, {"a": "c"}),
        ("a==b", "a==b", {"a": "b"}, {}),
        ("a!=b", "a!=b", {}, {"a": "b"}),
        ("a in (b, c)", "a in (b,c)", {"a": "c"}, {"a": "d"}),
        ("a notin (b)", "a notin (b)", {"x": "b"}, {"a": "b"}),
        ("a", "a", {"a": ""}, {}),
        ("!a", "!a", {}, {"a": "1"}),
        ("a>5", "a>5", {"a": "6"}, {"a": "5"}),
        ("a<5", "a<5", {"a": "-1"}, {"a": "x"}),
        ("b=2,a=1", "a=1,b=2", {"a": "1", "b": "2"}, {"a": "1"}),
        ("a=", "a=", {"a": ""}, {"a": "1"}),
        ("a in ()", "a in ()", {"a": ""}, {"a": "1"}),
        ("a in (,b)", "a in (,b)", {"a": ""}, {"a": "c"}),
        ("in in (in)", "in in (in)", {"in": "in"}, {}),
        (" a = b ", "a=b", {"a": "b"}, {}),
        ("example.com/app=x", "example.com/app=x", {"example.com/app": "x"}, {}),
        ("", "", {}, None),
    ],
)
def test_grammar(text, shown, yes, no):
    selector = selectors.parse_labels(text)
    assert str(selector) == shown
    assert selector.matches(yes)
    assert no is None or not selector.matches(no)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("(", "found '(', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a>b", "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"),
    ],
)
def test_refusals(text, message):
    with pytest.raises(BadRequest) as refused:
        selectors.parse_labels(text)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a@=b", 'unable to parse requirement: <nil>: Invalid value: "a@": name part must consist of'),
        ("a=-", 'unable to parse requirement: values[0][a]: Invalid value: "-": a valid label must be an empty string or'),
        ("x" * 64, 'unable to parse requirement: <nil>: Invalid value: "' + "x" * 64 + '": name part must be no more than 63 bytes'),
        ("A/b", 'unable to parse requirement: <nil>: Invalid value: "A/b": prefix part a lowercase RFC 1123 subdomain must'),
    ],
)
def test_bad_keys_and_values(text, start):
    with pytest.raises(BadRequest) as refused:
        selectors.parse_labels(text)
    assert refused.value.message.startswith(start)


def test_label_selectors_of_objects():
    selector = selectors.from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}, {"key": "y", "operator": "Exists"}],
        }
    )
    assert str(selector) == "app=web,tier notin (x),y"
    assert selector.matches({"app": "web", "y": ""})
    assert not selector.matches({"app": "web", "y": "", "tier": "x"})
    assert selector.exact("app") == "web"
    assert selector.exact("tier") is None


def test_null_selects_nothing_and_empty_everything():
    assert not selectors.from_label_selector(None).matches({"a": "b"})
    assert selectors.from_label_selector({}).matches({"a": "b"})
    assert selectors.from_label_selector({}).empty
    assert not selectors.from_label_selector(None).empty


@pytest.mark.parametrize("expression", [{"key": "a", "operator": "Like"}, {"key": "a", "operator": "In", "values": []}])
def test_senseless_expressions(expression):
    with pytest.raises(ValueError, match="operator"):
        selectors.from_label_selector({"matchExpressions": [expression]})


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from(["", "1", "2", "x"])
TERMS = st.one_of(
    st.builds("{}={}".format, KEYS, VALUES),
    st.builds("{}!={}".format, KEYS, VALUES),
    st.builds(lambda key, values: f"{key} in ({','.join(values)})", KEYS, st.lists(VALUES, min_size=1)),
    st.builds(lambda key, values: f"{key} notin ({','.join(values)})", KEYS, st.lists(VALUES, min_size=1)),
    KEYS,
    st.builds("!{}".format, KEYS),
)


def holds(requirement, labels):
    """The meaning, spelled out."""
    key, operator, values = requirement
    meaning = {
        "exists": key in labels,
        "!": key not in labels,
        "in": labels.get(key) in values,
        "notin": labels.get(key) not in values,
    }
    return meaning[{"=": "in", "==": "in", "!=": "notin"}.get(operator, operator)]


@given(st.lists(TERMS), st.dictionaries(KEYS, VALUES))
def test_matching_means_that_every_requirement_holds(terms, labels):
    selector = selectors.parse_labels(",".join(terms))
    assert selector.matches(labels) is all(holds(requirement, labels) for requirement in selector.requirements)
    again = selectors.parse_labels(str(selector))
    assert again == selector
    assert hash(again) == hash(selector)


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_from_map_is_a_subset_test(wanted, labels):
    assert selectors.from_map(wanted).matches(labels) is (wanted.items() <= labels.items())
