"""Role coco in real runs of ansible-playbook: what it shows, when it stops, and that it asks nothing unasked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_coco
from play_role import play_role

Play = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/coco"


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Plays the role's tasks on this machine; the look-up, which role stack would make, is given as a variable.

    Returns (exit status, output).
    """

    def run(*arguments: str, **variables: Any) -> tuple[int, str]:
        given = {"stack_lock": {"name": "mine"}, "stack_lookup": {"prefix": str(tmp_path / "prefix")}, **variables}
        return play_role(ROLE, tmp_path, given, *arguments)

    return run


def test_nothing_is_asked_of_a_server_without_datasets(play: Play, tmp_path: Path) -> None:
    status, output = play("-vv")
    assert status == 0, output
    assert "ok=0 " in output and "skipped=3 " in output
    assert not (tmp_path / "prefix").exists()


def test_datasets_are_shown_and_a_second_run_changes_nothing(play: Play, tmp_path: Path) -> None:
    tiny_coco.make(tmp_path / "coco", name="train2014")
    planned_status, planned = play("--check", "--diff", coco_path=str(tmp_path / "coco"))
    assert planned_status == 0 and "changed=1 " in planned, planned
    assert "+coco_2014_train: 8 images, 12 annotations, nothing found" in planned
    assert not (tmp_path / "prefix").exists()
    status, output = play(coco_path="~/coco")
    assert status == 0 and "changed=1 " in output, output
    assert "coco_2014_train       8           12        3  448.4 kB" in output
    status, output = play("--diff", coco_path=str(tmp_path / "coco"))
    assert status == 0 and "changed=0 " in output, output


def test_all_that_stops_is_in_one_message_after_the_table(play: Play, tmp_path: Path) -> None:
    made = {name: tiny_coco.make(tmp_path / name, seed=seed) for seed, name in enumerate(("sound", "lost", "cut"))}
    next(Path(made["lost"]["image_directory"]).iterdir()).unlink()
    os.truncate(made["cut"]["annotation_file"], 1000)
    datasets = [
        {"name": name, "images": entry["image_directory"], "annotations": entry["annotation_file"]}
        for name, entry in made.items()
    ]
    status, output = play(coco_datasets=datasets, coco_show="info")
    assert status != 0
    before, message = output.split("Detectron cannot use all datasets of localhost; it is told of the others alone.", 1)
    assert "STOP  lost image_missing: images are not on disk" in message
    assert "STOP  cut annotations_cut: the annotation file was cut short" in message
    assert "INFO  sound name_evaluator:" in before and "STOP" not in before
    assert "INFO" not in message
    [written] = (tmp_path / "prefix/checks").glob("*/datasets.json")
    assert json.loads(written.read_text())["datasets"].keys() == {"sound"}
    _, quiet = play(coco_datasets=datasets, coco_accepted=["image_missing"])
    assert "INFO" not in quiet and "image_missing" not in quiet and "annotations_cut" in quiet
