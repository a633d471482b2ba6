"""What modules document is what they take and give."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
MODULES = sorted((PLUGINS / "modules").glob("*.py"))
ACTIONS = {path.stem for path in (PLUGINS / "action").glob("*.py")}
# The others are the documentation of an action plugin that runs on the controller alone.
WITH_ARGUMENTS = [module for module in MODULES if "AnsibleModule(" in module.read_text()]


def constant(module: Path, name: str) -> Any:
    """A string that a module assigns at its top, read as YAML."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module.name} has no {name}")


def call(module: Path) -> ast.Call:
    """The call of AnsibleModule."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AnsibleModule":
            return node
    raise AssertionError(f"{module.name} calls no AnsibleModule")


def argument_spec(module: Path) -> dict[str, Any]:
    (spec,) = [keyword.value for keyword in call(module).keywords if keyword.arg == "argument_spec"]
    found: dict[str, Any] = ast.literal_eval(spec)
    return found


def named(modules: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules, ids=[module.stem for module in modules])


@named(WITH_ARGUMENTS)
def test_options_are_documented_as_they_are_taken(module: Path) -> None:
    options = constant(module, "DOCUMENTATION").get("options", {})
    spec = argument_spec(module)
    assert options.keys() == spec.keys()
    for name, taken in spec.items():
        documented = {key: value for key, value in options[name].items() if key != "description"}
        # Ansible's documentation has no word for "never shown".
        assert documented == {key: value for key, value in taken.items() if key != "no_log"}, name


@named(WITH_ARGUMENTS)
def test_defaults_are_of_their_own_type(module: Path) -> None:
    spec = argument_spec(module)
    some: dict[str, Any] = {"str": "x", "path": "x", "list": [], "dict": {}, "bool": True, "int": 1, "float": 1.0}
    required = {name: some[option["type"]] for name, option in spec.items() if option.get("required")}
    required.update({name: spec[name]["choices"][0] for name in required if "choices" in spec[name]})
    result = ArgumentSpecValidator(spec).validate(required)
    assert result.error_messages == []
    for name, option in spec.items():
        if "default" in option:
            assert result.validated_parameters[name] == option["default"], name


@named(MODULES)
def test_documentation_says_what_and_is_complete(module: Path) -> None:
    documentation = constant(module, "DOCUMENTATION")
    assert documentation["module"] == module.stem
    assert not documentation["short_description"].endswith(".")
    for name, option in documentation.get("options", {}).items():
        assert option["description"], name
        assert option["type"], name
        if option["type"] == "list":
            assert option["elements"], name


@named(MODULES)
def test_options_and_values_that_a_text_names_exist(module: Path) -> None:
    documentation, returned = constant(module, "DOCUMENTATION"), constant(module, "RETURN")
    text = module.read_text()
    for name, value in re.findall(r"\bO\((\w+)(?:=(\w+))?\)", text):
        option = documentation["options"][name]
        assert not value or value in option.get("choices", [value]), name
    for name in re.findall(r"\bRV\((\w+)\)", text):
        assert name in returned


@named(WITH_ARGUMENTS)
def test_what_is_returned_is_documented(module: Path) -> None:
    """Every key of an exit_json, in the source, beside Ansible's own."""
    returned = constant(module, "RETURN")
    for name, entry in returned.items():
        assert entry["description"] and entry["type"] and entry["returned"], name
    given = {
        keyword.arg
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "exit_json"
        for keyword in node.keywords
        if keyword.arg
    }
    assert given - {"changed", "diff", "msg"} <= returned.keys()


@named([module for module in WITH_ARGUMENTS if module.stem in ACTIONS])
def test_a_module_with_an_action_plugin_says_so(module: Path) -> None:
    assert "action plugin" in " ".join(constant(module, "DOCUMENTATION")["description"])


def test_every_action_plugin_has_a_module() -> None:
    assert {module.stem for module in MODULES} >= ACTIONS


def test_the_callback_is_documented_under_its_name() -> None:
    documentation = constant(PLUGINS / "callback" / "stack_summary.py", "DOCUMENTATION")
    assert (documentation["name"], documentation["type"]) == ("stack_summary", "aggregate")
