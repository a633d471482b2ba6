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
from ansible.module_utils.stack_installs import CLOSURE, StackError

FILE_NEEDS = ("filename", "sha256", "size", "licence")


@dataclass(frozen=True)
class Gap:
    """A file, a repository or a conda channel of a lock that lacks something."""

    where: str  # path in the lock, without its "stack_lock."
    values: dict[str, Any]
    lacks: tuple[str, ...]  # keys
    node: yaml.MappingNode

    @property
    def name(self) -> str:
        """How a person finds it in the lock."""
        return f"{self.where} ({self.values['filename']})" if self.values.get("filename") else self.where


def gaps(text: str) -> list[Gap]:
    """What a lock has that lacks something, in its order. Raises StackError on other text."""
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
    """What one object of a lock lacks: a file's FILE_NEEDS, a repository's full commit id and submodules asked for, the
    closure of a conda channel's specs."""
    if "specs" in values:
        return CLOSURE if any(values.get(key) is None for key in CLOSURE) else ()
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


def without(text: str, places: list[str]) -> str:
    """`text` without those objects of its lists, each given as its path in the lock; comments above them stay.

    Raises StackError for one that does not stand on lines of its own.
    """
    root = yaml.compose(text, yaml.SafeLoader)
    assert root is not None
    edits = []
    for where, node in _mappings(root, "", set()):
        if where.removeprefix("stack_lock.") in places:
            begin = text.rfind("\n", 0, node.start_mark.index) + 1
            end = text.find("\n", node.value[-1][1].end_mark.index) + 1
            if not re.fullmatch(" *- +{?", text[begin : node.start_mark.index + node.flow_style]) or not end:
                raise StackError(f"{where} does not stand on lines of its own: remove it by hand")
            edits.append((begin, end))
    for begin, end in reversed(edits):
        text = text[:begin] + text[end:]
    return text


def _edits(text: str, node: yaml.MappingNode, values: dict[str, Any]) -> Iterator[tuple[int, bool, int, str]]:
    """(start, whether a key is added, end, new text) for each value of one object."""
    at = {key.value: (key, value) for key, value in node.value}
    for name, value in values.items():
        listed = _is_listed(value) and not node.flow_style
        if listed and name in at:
            # The comment on the line stays there: the list goes below it.
            key, old = at[name]
            colon = text.index(":", key.end_mark.index) + 1
            line = text.find("\n", old.end_mark.index)
            line = len(text) if line < 0 else line
            yield colon, False, old.end_mark.index, ""
            yield line, True, line, _block(value, key.start_mark.column + 2)
        elif name in at:
            old = at[name][1]
            empty = old.start_mark.index == old.end_mark.index  # "sha256:" and nothing behind it
            yield old.start_mark.index, False, old.end_mark.index, " " * empty + _scalar(value)
        else:
            # A new key goes behind the sum, else behind the line that says what the object is.
            key, before = at[next(key for key in ("sha256", "source", "commit", "repository", "specs") if key in at)]
            end = before.end_mark.index
            if node.flow_style:
                yield end, True, end, f", {name}: {_scalar(value)}"
            else:
                line = text.find("\n", end)
                end = len(text) if line < 0 else line
                column = key.start_mark.column
                written = _block(value, column + 2) if listed else f" {_scalar(value)}"
                yield end, True, end, f"\n{' ' * column}{name}:{written}"


def _block(items: list[Any], column: int) -> str:
    """A list in YAML's block style below its key: an item per line, of objects a key per line."""
    lines = []
    for item in items:
        pairs = [_scalar(item)]
        if isinstance(item, dict):
            pairs = [
                f"{key}:{_block(value, column + 4) if _is_listed(value) else ' ' + _scalar(value)}"
                for key, value in item.items()
            ]
        lines += [f"\n{' ' * column}{'- ' if number == 0 else '  '}{pair}" for number, pair in enumerate(pairs)]
    return "".join(lines)


def _is_listed(value: Any) -> bool:
    """Whether a value is written item by item."""
    return isinstance(value, list) and bool(value)


def _scalar(value: Any) -> str:
    """`value` in YAML, quoted only where it would be read as something else."""
    plain = str(value)
    return (
        plain
        if re.fullmatch(r"[\w.+-]+(://[\w./+%~-]+)?", plain) and yaml.safe_load(plain) == value
        else json.dumps(value)
    )
