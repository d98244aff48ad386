"""registries.yaml: what is asked where, and what the file may not say. In: plans and validation. Out: pulling (test_pulls.py)."""

import pytest

from edgekube.kubelet.runtime.registries import Auth, RegistriesError, parse, plan_pull, read


def asked(found, name):
    return [one.reference for one in plan_pull(parse(found, "registries.yaml"), name)]


HUB = {"mirrors": {"docker.io": {"endpoint": ["https://m:5000", "http://n/v2/proxy"], "rewrite": {"^library/(.*)": "hub/$1"}}}}


@pytest.mark.parametrize(
    ("found", "name", "expected"),
    [
        ({}, "docker.io/library/a:v1", ["docker.io/library/a:v1"]),
        (HUB, "docker.io/library/a:v1", ["m:5000/hub/a:v1", "n/proxy/hub/a:v1", "docker.io/library/a:v1"]),
        (HUB, "docker.io/team/a@sha256:ab", ["m:5000/team/a@sha256:ab", "n/proxy/team/a@sha256:ab", "docker.io/team/a@sha256:ab"]),
        (HUB, "ghcr.io/x/a:v1", ["ghcr.io/x/a:v1"]),
        (
            {"mirrors": {"*": {"endpoint": ["https://all"]}, "ghcr.io": {"endpoint": "https://g"}}},
            "quay.io/x/a:1",
            ["all/x/a:1", "quay.io/x/a:1"],
        ),
        (
            {"mirrors": {"*": {"endpoint": ["https://all"]}, "ghcr.io": {"endpoint": "https://g"}}},
            "ghcr.io/x/a:1",
            ["g/x/a:1", "ghcr.io/x/a:1"],
        ),
        ({"mirrors": {"r:5000": {"endpoint": ["http://r:5000"]}}}, "r:5000/x/a:1", ["r:5000/x/a:1"]),
        ({"mirrors": {"docker.io": {"endpoint": ["https://registry-1.docker.io"]}}}, "docker.io/x/a:1", ["docker.io/x/a:1"]),
        ({"mirrors": {"r:5000": None}}, "r:5000/x/a:1", ["r:5000/x/a:1"]),
    ],
)
def test_mirrors_first_then_the_own_registry_under_the_own_name(found, name, expected):
    assert asked(found, name) == expected


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        ({"^rancher/(.*)": "mirror/rancher-${1}"}, "mirror/rancher-app"),
        ({"^(?P<who>.*)/(?P<what>.*)$": "$what/$who"}, "app/rancher"),
        ({"^nothing": "x", "rancher": "y", ".*": "z"}, "y/app"),
        ({r"app": r"a\1p"}, r"rancher/a\1p"),
    ],
)
def test_rewrites(rewrite, expected):
    found = {"mirrors": {"docker.io": {"endpoint": ["https://m"], "rewrite": rewrite}}}
    assert asked(found, "docker.io/rancher/app:v1")[0] == f"m/{expected}:v1"


def test_credentials_and_tls_belong_to_their_host():
    found = parse({
        "mirrors": {"docker.io": {"endpoint": ["https://m:5000", "http://plain", "https://127.0.0.1:5000"]}},
        "configs": {
            "m:5000": {"auth": {"username": "u", "password": "p"}, "tls": {"insecure_skip_verify": True}},
            "registry-1.docker.io": {"auth": {"auth": "aHViOnNlY3JldDp4"}},
            "plain": {"auth": {"identity_token": "t"}},
        },
    }, "f")  # fmt: skip
    plan = plan_pull(found, "docker.io/library/a:v1")
    assert [one.auth for one in plan] == [Auth("u", "p"), Auth(token="t"), Auth(), Auth("hub", "secret:x")]
    assert [one.insecure for one in plan] == [True, True, True, False]
    assert [one.mirror for one in plan] == [True, True, True, False]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], "the file is no mapping of mirrors, configs"),
        ({"mirror": {}}, "the file: unknown key 'mirror' (known: mirrors, configs)"),
        ({"mirrors": ["x"]}, "mirrors is no mapping of registries"),
        ({"mirrors": {"a": {"endpoints": []}}}, "mirrors.a: unknown key 'endpoints' (known: endpoint, rewrite)"),
        ({"mirrors": {"a": {"endpoint": ["ftp://x"]}}}, "mirrors.a.endpoint: 'ftp://x' is no URL such as https://mirror.lan:5000"),
        ({"mirrors": {"a": {"endpoint": ["https://[::1"]}}}, "mirrors.a.endpoint: 'https://[::1' is no URL such as https://mirror.lan:5000"),
        ({"mirrors": {"a": {"endpoint": ["m:99999"]}}}, "mirrors.a.endpoint: 'm:99999' is no URL such as https://mirror.lan:5000"),
        ({"mirrors": {"a": {"rewrite": {"(": "x"}}}}, "mirrors.a.rewrite: '(' -> 'x': missing ), unterminated subpattern at position 0"),
        ({"mirrors": {"a": {"rewrite": {"x": "$1"}}}}, "mirrors.a.rewrite: 'x' -> '$1': invalid group reference 1 at position 3"),
        ({"configs": {"https://a": {}}}, "configs.https://a: a registry is named by its host[:port], without a scheme"),
        ({"configs": {"a": {"auth": {"password": 123}}}}, "configs.a.auth.password is no text"),
        ({"configs": {"a": {"auth": {"auth": "%%"}}}}, "configs.a.auth.auth is not the base64 of username:password"),
        ({"configs": {"a": {"tls": {"ca_file": "/nosuch.pem"}}}}, "configs.a.tls.ca_file: there is no file /nosuch.pem"),
        ({"configs": {"a": {"tls": {"insecure_skip_verify": "yes"}}}}, "configs.a.tls.insecure_skip_verify is neither true nor false"),
        ({"configs": {"a": {"tls": {"key_file": "/etc/hostname"}}}}, "configs.a.tls: cert_file and key_file go together"),
    ],
)
def test_what_is_wrong_is_said(found, problem):
    with pytest.raises(RegistriesError) as caught:
        parse(found, "registries.yaml")
    assert str(caught.value) == f"registries.yaml: {problem}"


def test_every_problem_at_once():
    with pytest.raises(RegistriesError, match="x.*; .*y"):
        parse({"x": 1, "y": 2}, "f")


def test_no_file_is_nothing_and_no_yaml_is_told(tmp_path):
    assert plan_pull(read(tmp_path / "no.yaml"), "a.b/c:d")[0].reference == "a.b/c:d"
    (tmp_path / "bad.yaml").write_text("mirrors: [")
    with pytest.raises(RegistriesError, match="is not YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read(tmp_path / "empty.yaml").mirrors == {}
