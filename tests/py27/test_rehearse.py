"""What a rehearsal makes smaller, and how it judges what it saw; without Detectron."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from py27_sources import CODE


@pytest.fixture(scope="module")
def rehearse() -> ModuleType:
    sys.path.insert(0, str(CODE))  # it imports its neighbours
    try:
        spec = importlib.util.spec_from_file_location("rehearse", CODE / "rehearse.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(CODE))
    return module


class Options(dict[str, Any]):
    """As Detectron's AttrDict."""

    __getattr__ = dict.__getitem__


def options(**sections: Any) -> Options:
    defaults: dict[str, dict[str, Any]] = {
        "MODEL": {"NUM_CLASSES": 3},
        "SOLVER": {"BASE_LR": 0.005, "MAX_ITER": 360000, "STEPS": [0, 240000], "LR_POLICY": "steps_with_decay"},
        "TRAIN": {"IMS_PER_BATCH": 2, "SNAPSHOT_ITERS": 20000, "SCALES": (800,), "MAX_SIZE": 1333},
        "TEST": {"SCALE": 800, "SCORE_THRESH": 0.05},
    }
    return Options({name: Options(values | sections.get(name, {})) for name, values in defaults.items()}, NUM_GPUS=2)


def rung_of(verdict: Any, name: str) -> dict[str, str]:
    (found,) = [rung for rung in verdict.list() if rung["rung"] == name]
    return dict(found)


# --- what is made smaller ---


def test_what_takes_time_is_made_smaller_and_all_else_stays(rehearse: ModuleType, tmp_path: Path) -> None:
    own = {"MODEL": {"NUM_CLASSES": 3}, "NUM_GPUS": 2, "TRAIN": {"DATASETS": "('a',)"}}
    shrunk, changes = rehearse.smaller(own, options(), str(tmp_path), 24, "/w.pkl", 0.001)
    assert shrunk["MODEL"] == {"NUM_CLASSES": 3}
    assert shrunk["TRAIN"]["DATASETS"] == "('a',)"
    assert shrunk["TRAIN"]["WEIGHTS"] == "/w.pkl"
    assert shrunk["SOLVER"] == {"MAX_ITER": 24, "STEPS": [0], "BASE_LR": 0.001}
    assert (shrunk["NUM_GPUS"], shrunk["TRAIN"]["IMS_PER_BATCH"], shrunk["TEST"]["SCALE"]) == (1, 1, 160)
    assert shrunk["TEST"]["SCORE_THRESH"] == 0.0
    assert "DATA_LOADER" not in shrunk  # this Detectron knows no such option
    assert ["SOLVER.MAX_ITER", 360000, 24] in changes
    assert own["TRAIN"] == {"DATASETS": "('a',)"}


def test_a_checkpoint_comes_in_the_middle_and_no_second_one(rehearse: ModuleType, tmp_path: Path) -> None:
    for number in (6, 7, 24, 25, 100):
        shrunk, _ = rehearse.smaller({}, options(), str(tmp_path), number, "/w.pkl", 0.001)
        period = shrunk["TRAIN"]["SNAPSHOT_ITERS"]
        assert [one for one in range(1, number) if (one + 1) % period == 0] == [number // 2]


def test_what_is_small_already_stays_as_small(rehearse: ModuleType, tmp_path: Path) -> None:
    small = options(TRAIN={"MAX_SIZE": 100, "SCALES": (64,)}, TEST={"SCALE": 64})
    shrunk, _ = rehearse.smaller({}, small, str(tmp_path), 24, "/w.pkl", 0.001)
    assert (shrunk["TRAIN"]["MAX_SIZE"], shrunk["TEST"]["SCALE"]) == (100, 64)


def test_random_weights_get_scales_that_let_a_resnet_learn_and_no_warm_up(
    rehearse: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse, "write_calm_weights", lambda path: path)  # writes with numpy
    shrunk, _ = rehearse.smaller({}, options(), str(tmp_path), 24, "", 0.001)
    assert shrunk["TRAIN"]["WEIGHTS"] == str(tmp_path / "calm.pkl")
    assert shrunk["SOLVER"]["WARM_UP_ITERS"] == 0


def test_the_rate_is_the_configurations_for_one_image(rehearse: ModuleType) -> None:
    assert rehearse.rate_of(options(), None)[0] == pytest.approx(0.00125)
    assert rehearse.rate_of(options(), 0.5) == (0.5, "as given with --rate")


# --- datasets ---


def document(*objects: dict[str, Any], images: int = 20) -> dict[str, Any]:
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(images, 0, -1)],
        "annotations": [{"bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0} | one for one in objects],
        "categories": [{"id": 1, "name": "a"}, {"id": 7, "name": "b"}],
    }


def test_the_handful_is_spread_over_the_images_that_have_something_in_them(rehearse: ModuleType) -> None:
    taken = rehearse.handful(document(*({"image_id": number} for number in range(1, 21, 2))), 5, options())
    assert [image["id"] for image in taken["images"]] == [1, 5, 9, 13, 17]
    assert [one["image_id"] for one in taken["annotations"]] == [1, 5, 9, 13, 17]
    assert taken["categories"] == document()["categories"]


@pytest.mark.parametrize("spoilt", [{"iscrowd": 1}, {"area": 0}, {"bbox": [0, 0, 9, 1]}, {"bbox": []}])
def test_an_object_that_nothing_can_be_learnt_from_takes_no_image(rehearse: ModuleType, spoilt: dict[str, Any]) -> None:
    given = document({"image_id": 3} | spoilt, {"image_id": 4}, {"image_id": 4} | spoilt)
    taken = rehearse.handful(given, 8, options())
    assert [image["id"] for image in taken["images"]] == [4]
    assert len(taken["annotations"]) == 2  # of an image that is taken, all


def test_for_keypoints_an_image_must_have_some(rehearse: ModuleType) -> None:
    given = document({"image_id": 3, "num_keypoints": 0}, {"image_id": 4, "num_keypoints": 5})
    taken = rehearse.handful(given, 8, options(MODEL={"KEYPOINTS_ON": True}))
    assert [image["id"] for image in taken["images"]] == [4]


def test_of_a_dataset_without_annotations_any_images_are_taken(rehearse: ModuleType) -> None:
    given = document()
    del given["annotations"]
    taken = rehearse.handful(given, 2, options())
    assert [image["id"] for image in taken["images"]] == [1, 11]
    assert "annotations" not in taken


@pytest.mark.parametrize(
    ("model", "categories", "status", "words"),
    [
        ({"NUM_CLASSES": 3}, {"a": [(1, "x"), (2, "y")]}, "passed", "3: 2 categories and the background"),
        ({"NUM_CLASSES": 2}, {"a": [(1, "x"), (2, "y")]}, "failed", "MODEL.NUM_CLASSES is 2, but a has 2 categories"),
        ({"NUM_CLASSES": 2}, {"a": [(1, "x")], "b": [(2, "x")]}, "failed", "a and b have different categories"),
        ({"NUM_CLASSES": 2, "RPN_ONLY": True}, {"a": [(1, "x"), (2, "y")]}, "not_applicable", "knows no classes"),
    ],
)
def test_classes_are_compared(
    rehearse: ModuleType, model: dict[str, Any], categories: dict[str, Any], status: str, words: str
) -> None:
    verdict = rehearse.Verdict()
    rehearse.compare_classes(options(MODEL=model), categories, verdict)
    assert rung_of(verdict, "classes")["status"] == status
    assert words in rung_of(verdict, "classes")["reason"]


# --- judgements ---


@pytest.mark.parametrize(
    ("solver", "experiment", "status", "words"),
    [
        ({}, {}, "not_applicable", "a rate of 0.005 for 2 GPUs, 360000 iterations: nobody has compared it"),
        ({}, {"asked": {"unscaled": False}}, "passed", "scaled, as it was when the configuration was derived"),
        ({}, {"asked": {"unscaled": True}}, "not_applicable", "not scaled, as told (unscaled: true)"),
        ({"STEPS": [0, 400000]}, {"asked": {"unscaled": False}}, "failed", "do not rise from 0 to below"),
        ({"STEPS": [240000, 300000]}, {}, "failed", "do not rise from 0 to below"),
        ({"STEPS": [], "LR_POLICY": "step"}, {}, "not_applicable", "nobody has compared it"),
    ],
)
def test_the_schedule_is_judged_by_its_numbers_and_by_who_derived_it(
    rehearse: ModuleType, solver: dict[str, Any], experiment: dict[str, Any], status: str, words: str
) -> None:
    verdict = rehearse.Verdict()
    rehearse.look_at_schedule(options(SOLVER=solver), experiment, verdict)
    assert rung_of(verdict, "schedule")["status"] == status
    assert words in rung_of(verdict, "schedule")["reason"]


@pytest.mark.parametrize(
    ("losses", "trained", "status"),
    [
        ([3, 2, 2, 1, 1, 1], False, "passed"),
        ([3, 2, 2, 9, 1, 1], False, "passed"),  # one that is high in the middle
        ([1, 1, 2, 2, 3, 3], False, "failed"),
        ([2, 2, 2, 2, 2, 2], False, "failed"),
        ([2, 2, 2, 2, 3, 3], True, "not_applicable"),
        ([2, 2, 2, 2, 4, 4], True, "failed"),
    ],
)
def test_the_loss_falls_from_the_first_to_the_last_third(
    rehearse: ModuleType, losses: list[int], trained: bool, status: str
) -> None:
    verdict = rehearse.Verdict()
    statistics = [{"iter": number, "loss": loss} for number, loss in enumerate(losses)]
    repeated = [{"iter": 5, "loss": 99}, *statistics]  # before and after the kill: the second counts
    rehearse.judge_losses(repeated, 0.001, "why", trained, verdict)
    assert rung_of(verdict, "falling")["status"] == status
    assert rung_of(verdict, "finite")["status"] == "passed"


@pytest.mark.parametrize(
    ("lines", "statistics", "found"),
    [
        ([], [1.0, 2.0], ""),
        (["CRITICAL train.py: 98: Loss is NaN"], [1.0], "CRITICAL train.py: 98: Loss is NaN"),
        (["AssertionError: Negative areas founds"], [], "AssertionError: Negative areas founds"),
        ([], [1.0, float("nan")], "loss nan in iteration 1"),
        ([], [float("inf")], "loss inf in iteration 0"),
    ],
)
def test_a_loss_that_is_no_number_is_noticed(
    rehearse: ModuleType, lines: list[str], statistics: list[float], found: str
) -> None:
    run = SimpleNamespace(lines=lines, statistics=[{"iter": n, "loss": loss} for n, loss in enumerate(statistics)])
    assert rehearse.Run.divergence(run) == found


LOADED = "INFO net.py: 110: conv1_w loaded from weights file into gpu_0/conv1_w: (64, 3, 7, 7)"
MISSING = "INFO net.py: 103: fpn_inner_w not found"
MISMATCH = "AssertionError: Workspace blob cls_score_w with shape (3, 16) does not match weights file shape (81, 16)"


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        ([LOADED, LOADED], "passed", "/w.pkl: 2 of 2 blobs of the network, all of them"),
        ([LOADED, MISSING], "passed", "1 of 2 blobs of the network, the other 1 (fpn_inner_w, ...) begin at random"),
        ([MISSING], "failed", "/w.pkl holds no blob of this network"),
        ([LOADED, MISMATCH], "failed", "/w.pkl: Workspace blob cls_score_w with shape (3, 16) does not match"),
    ],
)
def test_weights_are_judged_by_what_the_network_took(
    rehearse: ModuleType, lines: list[str], status: str, words: str
) -> None:
    verdict = rehearse.Verdict()
    try:
        assert rehearse.judge_weights("/w.pkl", lines, verdict) == ("all of them" in words)
    except rehearse.Stop:
        assert MISMATCH in lines
    assert rung_of(verdict, "weights")["status"] == status
    assert words in rung_of(verdict, "weights")["reason"]


@pytest.mark.parametrize(
    ("line", "final", "words"),
    [
        ("INFO train.py: 151: ========> Resuming from checkpoint /x/model_iter12.pkl at start iter 13", True, ""),
        ("", True, "training began anew instead of after the checkpoint"),
        ("INFO train.py: 151: ========> Resuming from checkpoint /x/model_iter1.pkl at start iter 2", True, "began anew"),
        ("========> Resuming from checkpoint /x/model_iter12.pkl at start iter 13", False, "left no "),
        (f"========> Resuming from checkpoint /x/m.pkl at start iter 13\n{MISSING}", True, "lacks fpn_inner_w"),
    ],
)
def test_resuming_is_judged_by_where_it_began_and_what_it_left(
    rehearse: ModuleType, tmp_path: Path, line: str, final: bool, words: str
) -> None:
    if final:
        (tmp_path / "model_final.pkl").touch()
    verdict = rehearse.Verdict()
    run = SimpleNamespace(lines=line.splitlines(), log="resume.log")
    rehearse.judge_resume(run, 13, str(tmp_path / "model_final.pkl"), verdict)
    assert rung_of(verdict, "resume")["status"] == ("failed" if words else "passed")
    assert words in rung_of(verdict, "resume")["reason"]


def test_the_disk_must_hold_every_checkpoint_of_the_real_training(rehearse: ModuleType, tmp_path: Path) -> None:
    for size, status in ((1, "passed"), (10**15, "failed")):
        verdict = rehearse.Verdict()
        rehearse.judge_disk(options(), size, str(tmp_path), verdict)
        assert rung_of(verdict, "disk")["status"] == status
        assert rung_of(verdict, "disk")["reason"].startswith("37 checkpoints and final models of ")  # 360000 / 10000


def test_the_tables_of_results_are_read(rehearse: ModuleType) -> None:
    lines = [
        "INFO task_evaluation.py: 185: copypaste: Dataset: things_val",
        "INFO task_evaluation.py: 187: copypaste: Task: box",
        "INFO task_evaluation.py: 190: copypaste: AP,AP50",
        "INFO task_evaluation.py: 191: copypaste: 0.1000,-1.0000",
        "INFO task_evaluation.py: 187: copypaste: Task: mask",
        "INFO task_evaluation.py: 190: copypaste: AP,AP50",
        "INFO task_evaluation.py: 191: copypaste: 0.2000,0.3000",
    ]
    assert rehearse.precisions(lines) == {
        "things_val": {"box": {"AP": 0.1, "AP50": -1.0}, "mask": {"AP": 0.2, "AP50": 0.3}}
    }
    for names, error, status in ((["things_val"], "", "passed"), (["other"], "", "failed"), (["things_val"], "x", "failed")):
        verdict = rehearse.Verdict()
        rehearse.judge_evaluation(SimpleNamespace(lines=lines, error=error), names, verdict)
        assert rung_of(verdict, "evaluation")["status"] == status


def test_the_cause_of_a_failed_run_is_its_last_error(rehearse: ModuleType) -> None:
    lines = ["Traceback (most recent call last):", "IndexError: list index out of range", "  x", ""]
    run = SimpleNamespace(lines=lines, log="/r/test.log", killed=False, process=SimpleNamespace(returncode=1))
    said = rehearse.Run.error.fget(run)
    assert said == "IndexError: list index out of range (exit status 1; all of it in /r/test.log)"
    run.process.returncode = -11
    assert "(signal 11; " in rehearse.Run.error.fget(run)
    run.killed = True
    assert rehearse.Run.error.fget(run) == ""


def test_a_network_that_cannot_run_on_the_cpu_is_neither_passed_nor_failed(rehearse: ModuleType) -> None:
    verdict = rehearse.Verdict()
    said = "NotOnTheCPU: This network cannot run on the CPU: it uses the operator PSRoIPool (R-FCN)"
    run = SimpleNamespace(lines=[f"cpu_operators.{said}"], statistics=[], error="x")
    with pytest.raises(rehearse.Stop):
        rehearse.judge_training(run, "training", 0.1, verdict)
    assert rung_of(verdict, "training")["reason"].startswith("This network cannot run on the CPU: it uses the operator")
    assert verdict.status == "not_rehearsed"
    assert {rung["status"] for rung in verdict.list()} == {"not_applicable"}


def test_the_verdict_is_a_table_of_all_rungs_with_remedies(rehearse: ModuleType) -> None:
    verdict = rehearse.Verdict()
    verdict.passed("dataset", "8 images")
    verdict.failed("classes", "81", "set it to 3")
    document = {"config": "/c.yaml", "stand_in": "A stand-in", "status": verdict.status, "rungs": verdict.list()}
    text = rehearse.table(json.loads(json.dumps(document)))
    assert text.startswith("REHEARSAL of /c.yaml: FAILED\n  A stand-in\n")
    assert "\n  classes     FAILED  81\n                      remedy: set it to 3\n" in text
    assert [line.split()[0] for line in text.splitlines()[2:] if "remedy" not in line] == list(rehearse.RUNGS)
