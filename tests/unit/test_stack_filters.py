"""Filters: keys of built artifacts, requirements for pip, and what a mirror holds."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.stack_installs import built_key
from stack_installs import pip_requirements

from mirror import licence_lines, lock_artifacts, mirror_sources

SUM = "a" * 64
COMMIT = "b" * 40


def test_a_built_key_follows_recipe_and_sums_not_order() -> None:
    inputs = [{"filename": "a", "sha256": "1"}, {"filename": "b", "sha256": "2"}]
    recipe = {"name": "x", "version": 1, "inputs": inputs}
    assert built_key(recipe) == built_key({**recipe, "inputs": inputs[::-1], "filename": "ignored"})
    others = [
        {**recipe, "version": 2},
        {**recipe, "name": "y"},
        {**recipe, "inputs": inputs[:1]},
        {**recipe, "inputs": [{"filename": "a", "sha256": "2"}, {"filename": "b", "sha256": "1"}]},
    ]
    assert built_key(recipe) not in map(built_key, others)


def test_requirements_name_files_with_their_sums() -> None:
    lines = pip_requirements([{"filename": "a.whl", "sha256": SUM}], {"a.whl": "/cache/a.whl", "b.whl": "/cache/b.whl"})
    assert lines == f"/cache/a.whl --hash=sha256:{SUM}\n"


def file(name: str, **fields: Any) -> dict[str, Any]:
    return {"filename": name, "source": "url", "sha256": SUM, "size": 1_000_000, "licence": "MIT", **fields}


def test_a_mirror_holds_every_file_once() -> None:
    lock = {"b": {"wheel": file("b.whl")}, "a": [file("a.whl"), file("b.whl")], "built": {"filename": "no-source"}}
    assert [entry["filename"] for entry in lock_artifacts(lock)] == ["a.whl", "b.whl"]


def test_two_files_of_one_name_are_both_mirrored() -> None:
    """NVIDIA reused names."""
    assert len(lock_artifacts([file("cudnn.tgz"), file("cudnn.tgz", sha256="c" * 64)])) == 2


def test_a_mirror_refuses_what_is_not_locked() -> None:
    with pytest.raises(AnsibleFilterError, match="The sha256 of a is not known"):
        lock_artifacts({"a": file("a", sha256=None)})


def test_licences_are_named_with_names_and_sizes() -> None:
    artifacts = [file("numpy-1.whl", project="numpy"), file("x_1.deb", licence="GPL"), file("y_1.deb")]
    assert licence_lines(artifacts) == ["GPL: x (1.0 MB)", "MIT: numpy, y (2.0 MB)"]


def test_only_what_stands_in_is_chosen() -> None:
    real = {"path": "/m/git/cocoapi.git", "commit": COMMIT, "upstream": True, "why": ""}
    other = {"path": "/m/git/detectron-standin.git", "commit": "c" * 40, "upstream": False, "why": "no answer"}
    chosen = mirror_sources([{"item": "cocoapi", "record": real}, {"item": "detectron", "record": other}], {"test": 1})
    assert chosen.keys() == {"detectron_repository", "detectron_commit", "detectron_expect"}
    assert chosen["detectron_commit"] == "c" * 40
