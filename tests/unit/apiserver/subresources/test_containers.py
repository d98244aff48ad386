"""Options of log, exec and attach: what is refused, and what the kubelet is asked."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.apiserver.identity import User
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.request import Request
from edgekube.apiserver.subresources.containers import choose_container, kubelet_error, log_options
from edgekube.errors import ApiError, BadRequest, Invalid, NotFound


def request(**query: str) -> Request:
    async def nothing() -> bytes:
        return b""

    return Request("GET", "/x", {name: [value] for name, value in query.items()}, {}, nothing)


def pod(*containers: str, init: tuple[str, ...] = ()) -> dict[str, Any]:
    spec = {"containers": [{"name": name} for name in containers], "initContainers": [{"name": name} for name in init]}
    return {"metadata": {"name": "web"}, "spec": spec}


def test_the_container_is_the_only_one_or_named() -> None:
    assert choose_container(pod("a"), "") == "a"
    assert choose_container(pod("a", init=("i",)), "i") == "i"
    with pytest.raises(BadRequest, match=r"^a container name must be specified for pod web, choose one of: \[i a b\]$"):
        choose_container(pod("a", "b", init=("i",)), "")
    with pytest.raises(BadRequest, match="^container c is not valid for pod web$"):
        choose_container(pod("a"), "c")


def test_log_options_are_passed_on() -> None:
    asked = request(
        follow="true", tailLines="5", timestamps="1", previous="false", limitBytes="9", container="c", sinceTime="2026-01-01T00:00:00Z"
    )
    assert log_options(asked, "web") == [
        ("follow", "true"),
        ("timestamps", "true"),
        ("tailLines", "5"),
        ("limitBytes", "9"),
        ("sinceTime", "2026-01-01T00:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"tailLines": "-1"}, 'PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0'),
        ({"sinceSeconds": "0"}, 'PodLogOptions "web" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0'),
        ({"limitBytes": "0"}, 'PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0'),
        ({"sinceSeconds": "1", "sinceTime": "x"}, "at most one of `sinceTime` or `sinceSeconds` may be specified"),
        ({"stream": "Stdout", "tailLines": "1"}, "`tailLines` and specific `stream` are mutually exclusive for now"),
        ({"stream": "x"}, 'stream: Unsupported value: "x": supported values: "All", "Stderr", "Stdout"'),
    ],
)
def test_bad_log_options(query: dict[str, str], text: str) -> None:
    with pytest.raises(Invalid) as caught:
        log_options(request(**query), "web")
    assert text in caught.value.message


def test_numbers_must_be_numbers() -> None:
    with pytest.raises(BadRequest, match='strconv.ParseInt: parsing "many": invalid syntax'):
        log_options(request(tailLines="many"), "web")


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [(400, BadRequest, "waiting"), (404, NotFound, "the server could not find"), (500, ApiError, "Internal error")],
)
def test_kubelets_refusals(status: int, kind: type[ApiError], text: str) -> None:
    error = kubelet_error(status, "waiting", Operation(catalog.POD, User("ann"), "a", "web", "log"))
    assert type(error) is kind
    assert error.code == status
    assert text in error.message
