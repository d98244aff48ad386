"""Field selectors: grammar, escapes, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.api.fieldselectors import parse_fields
from edgekube.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("metadata.name=a", {"metadata.name": "a"}, {"metadata.name": "b"}),
        ("metadata.name==a", {"metadata.name": "a"}, {}),
        ("spec.nodeName!=n", {"spec.nodeName": ""}, {"spec.nodeName": "n"}),
        ("a=1,b!=2", {"a": "1", "b": "1"}, {"a": "1", "b": "2"}),
        ("a=x\\,y", {"a": "x,y"}, {"a": "x"}),
        ("", {}, None),
        ("a=", {"a": ""}, {"a": "1"}),
    ],
)
def test_matching(text, yes, no):
    selector = parse_fields(text)
    assert selector.matches(yes)
    assert no is None or not selector.matches(no)


def test_exact():
    selector = parse_fields("metadata.name=a,spec.nodeName!=b")
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("spec.nodeName") is None


@pytest.mark.parametrize(
    ("text", "known", "message"),
    [
        ("a", None, "invalid selector: 'a'; can't understand 'a'"),
        ("a=\\x", None, "invalid field selector: invalid escape sequence: \\x"),
        ("foo=1", ("spec.nodeName",), "field label not supported: foo"),
        ("foo=1", (), '"foo" is not a known field selector: only "metadata.name", "metadata.namespace"'),
    ],
)
def test_refusals(text, known, message):
    with pytest.raises(BadRequest) as refused:
        parse_fields(text, known)
    assert refused.value.message == message


@given(st.dictionaries(st.sampled_from(["a", "b.c"]), st.text(max_size=8)))
def test_any_value_survives_writing_and_reading(values):
    from edgekube.api.fieldselectors import FieldRequirement, FieldSelector

    selector = FieldSelector([FieldRequirement(field, True, value) for field, value in values.items()])
    assert parse_fields(str(selector)) == selector
    assert selector.matches(values)
