"""The text of a lock: what it lacks, and the same text with that filled in.

The text is edited where the values stand, so comments, order and style stay as a person wrote them.

Runs on the controller alone: Python >= 3.11, PyYAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from ansible.module_utils.stack_installs import StackError

FILE_NEEDS = ("filename", "sha256", "size", "licence")


@dataclass(frozen=True)
class Gap:
    """A file or a repository of a lock that lacks something."""

    where: str  # path in the lock, without its "stack_lock."
    values: dict[str, Any]
    lacks: tuple[str, ...]  # keys
    node: yaml.MappingNode

    @property
    def name(self) -> str:
        """How a person finds it in the lock."""
        return f"{self.where} ({self.values['filename']})" if self.values.get("filename") else self.where


def gaps(text: str) -> list[Gap]:
    """The files and repositories of a lock that lack something, in its order. Raises StackError on other text."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode) or "stack_lock" not in [key.value for key, _value in root.value]:
            raise StackError("It has no stack_lock: a lock is a YAML file with that one key.")
        found = [
            Gap(where.removeprefix("stack_lock").lstrip("."), loader.construct_document(node), (), node)
            for where, node in _mappings(root, "", set())
        ]
    except yaml.YAMLError as error:
        raise StackError(f"It cannot be read: {error}") from error
    finally:
        loader.dispose()
    return [Gap(gap.where, gap.values, lacks, gap.node) for gap in found if (lacks := _lacks(gap.values))]


def _mappings(node: yaml.Node, where: str, seen: set[int]) -> Iterator[tuple[str, yaml.MappingNode]]:
    """Every mapping below `node`, once, with the path to it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield where, node
        for key, value in node.value:
            yield from _mappings(value, f"{where}.{key.value}".lstrip("."), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _mappings(item, f"{where}[{index}]", seen)


def _lacks(values: dict[str, Any]) -> tuple[str, ...]:
    """What one object of a lock lacks: a file's FILE_NEEDS, a repository's full commit id, submodules asked for."""
    if "source" in values:
        return tuple(key for key in FILE_NEEDS if values.get(key) is None)
    if "repository" not in values:
        return ("source",) if values.get("sha256", "") is None else ()
    pinned = re.fullmatch("[0-9a-f]{40}", str(values.get("commit")))
    asked = values.get("submodules", "") is None
    return (("commit",) if not pinned else ()) + (("submodules",) if asked else ())


def filled(text: str, found: list[tuple[Gap, dict[str, Any]]]) -> str:
    """`text` with the values found for each gap: a value that stands there is replaced, a missing key is added."""
    edits = [edit for gap, values in found for edit in _edits(text, gap.node, values)]
    pieces, done = [], 0
    for start, _added, end, new in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [text[done:start], new]
        done = end
    return "".join([*pieces, text[done:]])


def _edits(text: str, node: yaml.MappingNode, values: dict[str, Any]) -> Iterator[tuple[int, bool, int, str]]:
    """(start, whether a key is added, end, new text) for each value of one object."""
    at = {key.value: (key, value) for key, value in node.value}
    for name, value in values.items():
        if name in at:
            old = at[name][1]
            empty = old.start_mark.index == old.end_mark.index  # "sha256:" and nothing behind it
            yield old.start_mark.index, False, old.end_mark.index, " " * empty + _scalar(value)
            continue
        # A new key goes behind the sum, else behind the line that says what the object is.
        key, before = at[next(name for name in ("sha256", "source", "commit", "repository") if name in at)]
        end = before.end_mark.index
        if node.flow_style:
            yield end, True, end, f", {name}: {_scalar(value)}"
        else:
            line = text.find("\n", end)
            end = len(text) if line < 0 else line
            yield end, True, end, f"\n{' ' * key.start_mark.column}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    """`value` in YAML, quoted only where it would be read as something else."""
    plain = str(value)
    return plain if re.fullmatch(r"[\w.+-]+", plain) and yaml.safe_load(plain) == value else json.dumps(value)
