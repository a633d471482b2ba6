"""mirror: everything that the lock names, by its sum."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
MIRROR = REPOSITORY / "mirror"


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MIRROR / "manifest.json").read_text())
    return loaded


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_each_file_lies_where_its_sum_says(manifest: dict[str, Any]) -> None:
    for artifact in manifest["files"]:
        assert sha256_of(MIRROR / "sha256" / artifact["sha256"] / artifact["filename"]) == artifact["sha256"]


def test_each_file_names_its_licence(manifest: dict[str, Any]) -> None:
    assert [artifact["filename"] for artifact in manifest["files"] if not artifact["licence"]] == []


def test_each_built_file_is_recorded_with_its_inputs(manifest: dict[str, Any]) -> None:
    known = {artifact["filename"]: artifact["sha256"] for artifact in manifest["files"]}
    assert {record["recipe"] for record in manifest["built"]} >= {"anaconda2", "python3"}
    for record in manifest["built"]:
        # An older recipe's file may lie beside it.
        assert record["sha256"] in map(sha256_of, MIRROR.glob(f"built/*/{record['filename']}"))
        assert record["inputs"].items() <= known.items()


@pytest.mark.parametrize("project", ["cocoapi", "detectron"])
def test_repository_holds_the_commit_to_build(project: str) -> None:
    sources = yaml.safe_load((MIRROR / "sources.yml").read_text())
    lock = yaml.safe_load((REPOSITORY / "group_vars/stack_cuda90_wheel/lock.yml").read_text())["stack_lock"]
    repository = sources.get(f"{project}_repository", f"{project}.git")
    commit = sources.get(f"{project}_commit", lock[project]["commit"])
    done = subprocess.run(["git", "-C", MIRROR / "git" / repository, "cat-file", "-t", commit], capture_output=True, text=True)
    assert done.stdout == "commit\n", done.stderr
