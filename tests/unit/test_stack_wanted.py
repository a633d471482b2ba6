"""What a stack wants installed: identities, order, and refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.module_utils.stack_installs import StackError
from ansible.module_utils.stack_wanted import wanted_installs

SUM = "a" * 64
COMMIT = "b" * 40


def spec(version: str = "1.0", requires: tuple[str, ...] = (), **inputs: Any) -> dict[str, Any]:
    return {"version": version, "recipe": 1, "inputs": inputs, "requires": list(requires)}


def chain() -> dict[str, dict[str, Any]]:
    """detectron on caffe2 on anaconda2, and nvidia_libs by itself; the order is not the order to build in."""
    return {
        "detectron": spec(requires=("caffe2",), commit=COMMIT),
        "caffe2": spec(requires=("anaconda2",), wheels=[{"filename": "a.whl", "sha256": SUM}]),
        "nvidia_libs": spec(),
        "anaconda2": spec(),
    }


def digests(specs: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {role: install["digest"] for role, install in wanted_installs(specs).items()}


def test_installs_come_in_an_order_in_which_they_can_be_built() -> None:
    order = list(wanted_installs(chain()))
    assert order.index("anaconda2") < order.index("caffe2") < order.index("detectron")
    assert sorted(order) == sorted(chain())


def test_an_installs_path_has_its_version_and_digest() -> None:
    install = wanted_installs(chain())["caffe2"]
    assert install["path"] == f"opt/caffe2/1.0-{install['digest']}"
    assert len(install["digest"]) == 12


def changed(role: str, key: str, value: Any) -> dict[str, dict[str, Any]]:
    specs = copy.deepcopy(chain())
    specs[role][key] = value
    return specs


@pytest.mark.parametrize(
    ("specs", "roles"),
    [
        (changed("anaconda2", "recipe", 2), {"anaconda2", "caffe2", "detectron"}),
        (changed("anaconda2", "version", "1.1"), {"anaconda2", "caffe2", "detectron"}),
        (changed("caffe2", "inputs", {"wheels": []}), {"caffe2", "detectron"}),
        (changed("caffe2", "requires", ["anaconda2", "nvidia_libs"]), {"caffe2", "detectron"}),
        (changed("detectron", "inputs", {"commit": "c" * 40}), {"detectron"}),
        (changed("nvidia_libs", "inputs", {"option": True}), {"nvidia_libs"}),
        (changed("nvidia_libs", "disk_bytes", 17), set()),  # says nothing about what is installed
    ],
)
def test_a_change_reaches_what_is_built_on_it_and_nothing_else(
    specs: dict[str, dict[str, Any]], roles: set[str]
) -> None:
    before, after = digests(chain()), digests(specs)
    assert {role for role in before if before[role] != after[role]} == roles


def test_another_address_of_the_same_bytes_changes_nothing() -> None:
    specs = chain()
    before = digests(specs)
    specs["caffe2"]["inputs"]["wheels"][0]["urls"] = ["https://elsewhere.example/a.whl"]
    assert digests(specs) == before


def test_two_roles_of_the_same_inputs_are_two_installs() -> None:
    assert len(set(digests({"a": spec(), "b": spec()}).values())) == 2


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        ({"a": spec(requires=("b",)), "b": spec(requires=("a",))}, "require each other"),
        ({"a": spec(requires=("a",))}, "require each other"),
        ({"a": spec(requires=("b", "c"))}, "No role of this play defines the install b, c"),
        ({"a": spec(file={"filename": "f", "sha256": None})}, "The sha256 of f is not known .*playbooks/lock.yml"),
        ({"detectron": spec("feature", commit="feature/x")}, "The commit of detectron is 'feature/x'.*git rev-parse"),
        ({"a": spec("../../etc")}, "version of a .* cannot be the name of a folder"),
        ({"a": spec("")}, "cannot be the name of a folder"),
        ({"a": spec(".hidden")}, "cannot be the name of a folder"),
        ({"a": spec("1 0")}, "cannot be the name of a folder"),
    ],
)
def test_wrong_specs_are_refused_with_a_sentence(specs: dict[str, dict[str, Any]], says: str) -> None:
    with pytest.raises(StackError, match=says):
        wanted_installs(specs)
