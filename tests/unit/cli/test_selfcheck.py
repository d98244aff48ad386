"""`check --self`: each kind of thing that can be missing is named; making the inventory refuses to leave out what is imported."""

import copy

import pytest

from edgekube.cli import inventory, selfcheck


@pytest.fixture(scope="module")
def whole():
    return inventory.survey()


def lacking(whole, **parts):
    """The problems with an inventory of nothing but `parts`, which is quicker to go through than the whole."""
    expected = {"modules": {}, "imports": [], "data": {}, "registries": {}} | parts
    return list(selfcheck.missing(expected))


def test_the_inventory_has_what_the_source_has(whole):
    assert "edgekube.cli.server" in whole["modules"]
    assert "main" in whole["modules"]["edgekube.cli.server"]
    assert "core/v1/pods" in whole["registries"]["kinds"]
    assert "InterPodAffinity" in whole["registries"]["scheduler plugins"]
    assert "uvloop" in whole["imports"], "the lazy ones too"
    assert {"api/schema_data/types.json.gz", "units/edgekube.service"} <= whole["data"].keys()
    assert not [each for each in whole["imports"] if each.startswith("edgekube")]


def test_nothing_is_missing_of_what_is_there(whole):
    names = ("edgekube.cli.server", "edgekube.lib.clock")
    modules = {name: whole["modules"][name] for name in names}
    assert lacking(whole, modules=modules, imports=["uvloop", "yaml:safe_load", "os:path"], data=whole["data"]) == []
    assert lacking(whole, registries=whole["registries"]) == []


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"modules": {"edgekube.nothing": []}}, "module edgekube.nothing: No module named 'edgekube.nothing'"),
        ({"modules": {"edgekube.cli.server": ["run_backwards"]}}, "edgekube.cli.server lacks run_backwards"),
        ({"imports": ["no_such_package"]}, "no_such_package: No module named 'no_such_package'"),
        ({"imports": ["yaml:no_such_name"]}, "yaml.no_such_name: No module named 'yaml.no_such_name'"),
        ({"data": {"api/none.gz": ""}}, "data file api/none.gz is missing"),
        ({"data": {"api/schema_data/types.json.gz": "0"}}, "data file api/schema_data/types.json.gz is not the one of the source"),
        ({"registries": {"kinds": ["core/v1/unicorns"]}}, "kinds: core/v1/unicorns is missing"),
        ({"registries": {"spells": ["abracadabra"]}}, "spells: abracadabra is missing"),
    ],
)
def test_what_is_missing_is_named(whole, parts, problem):
    assert lacking(whole, **copy.deepcopy(parts)) == [problem]


def test_what_is_imported_can_not_be_left_out():
    with pytest.raises(ValueError, match=r"edgekube\.lib\.clock is imported, but left out"):
        inventory.survey(("edgekube.lib.clock",))
