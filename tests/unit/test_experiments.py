"""What is asked of experiments is checked as a whole, before anything is started."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from action_plugin import Action
from ansible.module_utils.coco_check import fingerprint
from ansible.module_utils.training_status import experiment_lines
from experiments import FIELDS, experiment_configs, experiment_plans, experiment_problems, experiments_wanted

BASELINE = """
MODEL: {TYPE: generalized_rcnn, NUM_CLASSES: 81, FASTER_RCNN: true}
NUM_GPUS: 8
SOLVER: {BASE_LR: 0.02, LR_POLICY: steps_with_decay, MAX_ITER: 90000, STEPS: [0, 60000, 80000]}
TRAIN: {DATASETS: "('coco_2014_train',)", WEIGHTS: https://example.org/R-50.pkl}
TEST: {DATASETS: "('coco_2014_minival',)"}
"""
PASSED = {
    "rungs": [{"rung": rung, "status": "passed"} for rung in ("predicted", "operator", "cudnn_cublas", "multi_gpu")]
}
# As role coco tells what it saw of a dataset's bytes.
SEEN = {"annotations_sha256": "ab", "images": 8, "images_bytes": 9}
NO_GPU = {"rungs": [{"rung": "predicted", "status": "not_applicable", "reason": "no GPU"}]}
TOO_NEW = {
    "rungs": [
        {"rung": "predicted", "status": "passed"},
        {"rung": "operator", "status": "passed"},
        {
            "rung": "cudnn_cublas",
            "status": "failed",
            "checks": [{"status": "failed", "reason": "CUDNN_STATUS_EXECUTION_FAILED."}],
        },
    ]
}
# Of a dataset that role coco left out.
BROKEN = {
    "id": "image_missing",
    "severity": "stop",
    "breaks": "",
    "title": "images are not on disk",
    "what": "1.jpg",
    "cause": "Detectron stops.",
    "remedy": "Copy them.",
}


def plan(tmp_path: Path, asked: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The plan of one experiment e2e, on a server that has two datasets."""
    text = changes.pop("text", BASELINE)
    baseline = {"path": "/prefix/opt/detectron/1/configs/e2e.yaml", "text": BASELINE}
    found = {
        "config": {**baseline, "text": text},
        "baseline": baseline,
        "ran": "",
        "state": {"state": "", "final": False},
        "workspace": {},
    }
    found.update(
        {key: changes.pop(key) for key in ("ran", "state", "config", "baseline", "workspace") if key in changes}
    )
    wanted = experiments_wanted({"e2e": {"config": "e2e", **asked}})
    settings = {
        "prefix": "/prefix",
        "stack": "cuda90_wheel",
        "generation": {"path": "/prefix/generations/1"},
        "ladder": PASSED,
        "configs": str(tmp_path),
        "rehearsal": False,
        "resume": False,
        **changes,
    }
    known = ("coco_2014_train", "coco_2014_minival", "pets", "more_pets")
    look = {
        "experiments": dict.fromkeys(experiment_configs(wanted, settings["rehearsal"]), found),
        "datasets": {name: {"image_directory": f"/data/{name}", "annotation_file": "/data/x.json"} for name in known},
        "reports": {
            "coco_2014_train": {"classes": 81},
            "pets": {"classes": 3, "fingerprint": SEEN, "class_names": ["cat", "dog"]},
            "more_pets": {"classes": 3, "class_names": ["dog", "cat"]},
            "broken": {"classes": 3, "class_names": ["cat", "dog"], "findings": [BROKEN]},
        },
        "detectron": {"path": "/prefix/opt/detectron/1"},
    }
    (made,) = experiment_plans(wanted, look, settings)
    return made


def config_of(made: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(made["files"]["config.yaml"])
    return config


def test_schedule_follows_the_gpus_and_the_difference_is_shown(tmp_path: Path) -> None:
    made = plan(tmp_path, {"gpus": 2})
    assert made["refusals"] == []
    assert made["gpus"] == 2
    config = config_of(made)
    assert (config["NUM_GPUS"], config["SOLVER"]["BASE_LR"], config["SOLVER"]["MAX_ITER"]) == (2, 0.005, 360000)
    assert config["OUTPUT_DIR"] == "/prefix/runs/e2e"
    assert any("SOLVER.BASE_LR: 0.02 -> 0.005" in line for line in made["lines"])
    assert made["facts"]["schedule"]["SOLVER.STEPS"] == [0, 240000, 320000]


def test_own_datasets_bring_their_number_of_classes(tmp_path: Path) -> None:
    made = plan(tmp_path, {"train": ["pets"], "test": ["pets"]})
    assert made["refusals"] == []
    assert config_of(made)["MODEL"]["NUM_CLASSES"] == 3
    assert made["facts"]["datasets"] == {"pets": fingerprint({"fingerprint": SEEN})}
    assert re.fullmatch("[0-9a-f]{12}", made["facts"]["datasets"]["pets"])
    assert plan(tmp_path, {})["facts"]["datasets"] == {"coco_2014_train": "", "coco_2014_minival": ""}


def test_the_command_is_a_program_of_the_shell(tmp_path: Path) -> None:
    script = plan(tmp_path, {"multi_gpu_testing": True})["files"]["run.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=@GPUS@\n" in script
    assert script.endswith(
        'exec python2 "$DETECTRON_TOOLS"/train_net.py --multi-gpu-testing --cfg /prefix/runs/e2e/config.yaml\n'
    )


def test_a_config_of_ones_own_beside_the_inventory_comes_first(tmp_path: Path) -> None:
    (tmp_path / "e2e.yaml").write_text(BASELINE.replace("90000", "45000"))
    made = plan(tmp_path, {"gpus": 8, "unscaled": True})
    assert config_of(made)["SOLVER"]["MAX_ITER"] == 45000
    assert made["facts"]["config"] == str(tmp_path / "e2e.yaml")


def test_a_workspace_brings_its_own_code_and_the_generation_that_it_was_built_with(tmp_path: Path) -> None:
    built = {"generation": "/prefix/generations/7", "commit": "c0ffee"}
    made = plan(tmp_path, {"workspace": "alice"}, workspace=built)
    assert made["refusals"] == []
    assert made["facts"]["generation"] == "/prefix/generations/7"
    assert made["facts"]["detectron"] == {"path": "/prefix/work/alice/detectron", "commit": "c0ffee"}
    script = made["files"]["run.sh"]
    assert script.index(". /prefix/generations/7/activate.sh") < script.index(". /prefix/work/alice/activate.sh")


def failing(rung: str) -> dict[str, Any]:
    """A ladder that one rung of failed."""
    failed = {"rung": rung, "status": "failed", "checks": [{"status": "failed", "reason": "It did not."}]}
    return {"rungs": [failed if passed["rung"] == rung else passed for passed in PASSED["rungs"]]}


def test_one_gpu_need_not_work_with_others(tmp_path: Path) -> None:
    assert plan(tmp_path, {"gpus": 1}, ladder=failing("multi_gpu"))["refusals"] == []


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a dataset that nobody placed": ({"train": ["cats"]}, {}, "where cats is"),
    "a dataset that Detectron cannot use": (
        {"train": ["pets"], "test": ["broken"]},
        {},
        "e2e cannot use broken on this server: images are not on disk (image_missing): 1.jpg. Detectron stops.",
    ),
    "a test on other categories": (
        {"train": ["pets"], "test": ["more_pets"]},
        {},
        "the same categories in the same order: class 1 is cat in pets, and dog in more_pets.",
    ),
    "a rate of another number of GPUs": ({"gpus": 1, "options": {"SOLVER.BASE_LR": 0.02}}, {}, "8 times"),
    "a server without a GPU": ({}, {"ladder": NO_GPU}, "no GPU of this server"),
    "a ladder that was never climbed": ({}, {"ladder": {}}, "it was never climbed"),
    "a GPU that is too new": ({}, {"ladder": TOO_NEW}, "failed at cudnn_cublas: CUDNN_STATUS_EXECUTION_FAILED."),
    "a workspace that is nowhere": ({"workspace": "alice"}, {}, "-e workspace_name=alice"),
    "GPUs that do not work together": (
        {"gpus": 2},
        {"ladder": failing("multi_gpu")},
        "failed at multi_gpu: It did not.",
    ),
    "datasets of other classes": ({"train": ["coco_2014_train", "pets"]}, {}, "have different numbers of categories"),
    "a rate that no config of Detectron has": (
        {},
        {"text": BASELINE.replace("0.02", "0.2"), "baseline": {"path": "", "text": ""}},
        "10 times that of Detectron's own configs",
    ),
    "a config that is nowhere": ({}, {"config": {"path": "", "text": ""}}, "there is no config e2e"),
    "a config that is no YAML": ({}, {"text": "{"}, "This is no YAML"),
    "what was started before": (
        {},
        {"state": {"state": "stopped", "final": False, "checkpoint": 99}},
        "-e train_resume=true",
    ),
    "a resume with another number of GPUs": (
        {"gpus": 4},
        {"resume": True, "state": {"state": "stopped", "final": False, "checkpoint": 99}, "ran": BASELINE},
        "NUM_GPUS was 8 where the checkpoint was trained, and is 4",
    ),
}


@pytest.mark.parametrize(("asked", "changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_fail_later_is_refused(
    asked: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in " ".join(plan(tmp_path, asked, **changes)["refusals"])


def test_an_unscaled_schedule_is_taken_when_told_so_by_name(tmp_path: Path) -> None:
    made = plan(tmp_path, {"options": {"SOLVER.BASE_LR": 0.02}, "unscaled": True})
    assert made["refusals"] == []
    assert any("Unscaled, as told" in line for line in made["lines"])


def test_ones_own_copy_of_a_baseline_with_fewer_gpus_alone_is_refused(tmp_path: Path) -> None:
    """What the document did in its first experiment."""
    (tmp_path / "e2e.yaml").write_text(BASELINE.replace("NUM_GPUS: 8", "NUM_GPUS: 2"))
    assert "4 times what the linear scaling rule gives" in " ".join(plan(tmp_path, {"gpus": 2})["refusals"])


def test_a_rehearsal_needs_no_gpu_and_replaces_the_one_before(tmp_path: Path) -> None:
    state = {"state": "finished", "final": True, "checkpoint": 1}
    made = plan(tmp_path, {"gpus": 2}, rehearsal=True, ladder=NO_GPU, state=state)
    assert made["refusals"] == []
    assert (made["run"], made["gpus"], made["replace"]) == ("e2e.rehearsal", 0, True)
    assert "export DETECTRON_DEVICE=cpu\n" in made["files"]["run.sh"]


WRONG = {
    "no experiments": ([], "must be experiments by name"),
    "none": ({}, "train_experiments has no experiment"),
    "no fields": ({"a": None}, "a must have fields, at least config"),
    "no config": ({"a": {}}, "a names no config"),
    "a field that none has": ({"a": {"config": "x", "gpu": 2}}, "a has a field gpu, which no experiment has"),
    "a text for a number": ({"a": {"config": "x", "gpus": "2"}}, "gpus of a is '2' and must be a number from 1 on"),
    "another device": ({"a": {"config": "x", "device": "tpu"}}, "must be gpu or cpu"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_an_experiment_is_said(given: Any, message: str) -> None:
    assert message in " ".join(experiment_problems(given))


def test_only_names_experiments_that_there_are() -> None:
    given = {"a": {"config": "x"}, "b": {"config": "y"}}
    assert experiment_problems(given, "b") == []
    assert list(experiments_wanted(given, "b")) == ["b"]
    assert experiment_problems(given, "b, c") == ["train_only names c, and train_experiments has a, b."]


def test_of_a_rehearsal_that_has_ended_its_verdict_is_told() -> None:
    rungs = [
        {"rung": "dataset", "status": "passed", "reason": "8 of 12 images", "remedy": ""},
        {"rung": "classes", "status": "failed", "reason": "MODEL.NUM_CLASSES is 81", "remedy": "set it to 3"},
        {"rung": "finite", "status": "not_applicable", "reason": "not reached", "remedy": ""},
    ]
    verdict = {"status": "failed", "stand_in": "This is a stand-in", "total_seconds": 4.6, "rungs": rungs}
    state = {"state": "failed", "server": "gpu3", "final": False, "checkpoint": -1}
    told = {"e2e.rehearsal": {"state": state, "log": {"findings": []}, "verdict": verdict}}
    assert experiment_lines(told) == [
        "e2e.rehearsal: failed, on gpu3, in 5 s",
        "  STAND-IN    This is a stand-in",
        "  dataset     passed  8 of 12 images",
        "  classes     FAILED  MODEL.NUM_CLASSES is 81",
        "                      Remedy: set it to 3",
        "  finite      n/a     not reached",
    ]


def test_the_documentation_has_a_row_for_each_field() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/training.md").read_text()
    table = text.partition("| field | default | meaning |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(FIELDS)


def test_where_nothing_explains_a_failure_the_end_of_the_log_is_shown() -> None:
    action: Any = Action("experiment_follow").plugin
    unexplained = {"title": "?", "severity": "fatal", "line": 0, "text": "", "cause": "?", "remedy": "?"}
    state = {"state": "failed", "server": "gpu1", "final": False, "checkpoint": -1}
    log = {"findings": [unexplained], "state": {"last": {}}, "end": ["cannot be read"], "progress": ""}
    failed = {"e2e": {"state": state, "log": log, "verdict": {}}}
    assert action._why(failed).endswith("  log.txt: cannot be read")
    unexplained["line"] = 7
    assert "log.txt: cannot be read" not in action._why(failed)


@pytest.mark.parametrize(
    ("kind", "state", "images", "results", "line"),
    [
        ("inference", "running", {}, {}, "x: running, on gpu1, starting"),
        ("inference", "running", {"done": 2, "total": 9}, {}, "x: running, on gpu1, 2 of 9 images"),
        ("inference", "finished", {"done": 9, "total": 9}, {}, "x: finished, on gpu1, 9 of 9 images"),
        ("evaluation", "finished", {}, {}, "x: finished, on gpu1"),
        (
            "evaluation",
            "finished",
            {},
            {"val": {"box": {"AP": 0.547}, "mask": {"AP": 0.0}}, "none": {"box": {"AP": -1.0}}},
            "x: finished, on gpu1, val: box AP 54.7, mask AP 0.0",
        ),
        ("training", "running", {}, {}, "x: running, on gpu1, starting: no iteration yet"),
        ("training", "finished", {}, {}, "x: finished, on gpu1, it has no checkpoint"),
    ],
)
def test_of_what_uses_a_model_its_images_and_its_precision_are_told(
    kind: str, state: str, images: dict[str, int], results: dict[str, Any], line: str
) -> None:
    became = {"state": state, "server": "gpu1", "where": "gpu1", "final": False, "checkpoint": -1}
    log = {"findings": [], "state": {"last": {}, "results": results}, "progress": "starting: no iteration yet"}
    told = {"x": {"state": became, "log": log, "images": images, "facts": {"kind": kind}}}
    assert experiment_lines(told) == [line]
