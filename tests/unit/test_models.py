"""What a model is used on is checked as a whole, before anything is fetched or started."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.coco_check import fingerprint
from models import (
    evaluation_lines,
    images_here,
    inference_lines,
    model_configs,
    model_plan,
    model_problems,
    run_name,
)
from test_experiments import BASELINE, NO_GPU, PASSED, SEEN, TOO_NEW

ASKED = {
    "experiment": "",
    "config": "",
    "weights": "",
    "weights_on_server": "",
    "images": "",
    "images_on_server": "",
    "threshold": 0.7,
    "device": "gpu",
    "gpus": 1,
    "datasets": "",
    "options": {},
    "name": "",
}
OF_AN_EXPERIMENT = {"experiment": "pets"}
OF_THE_ZOO = {"config": "e2e", "weights": "https://example.org/model_final.pkl"}
PETS = BASELINE.replace("coco_2014_train", "pets").replace("coco_2014_minival", "pets_val").replace("81", "3")
MODEL = "/prefix/runs/pets/train/pets/generalized_rcnn/model_final.pkl"


def asked(**given: Any) -> dict[str, Any]:
    return {**ASKED, **given}


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("inference", {**OF_AN_EXPERIMENT, "images": "a.jpg"}, []),
        ("inference", {**OF_THE_ZOO, "images_on_server": "/data/photos"}, []),
        ("evaluation", OF_AN_EXPERIMENT, []),
        ("evaluation", {**OF_AN_EXPERIMENT, "weights": "other.pkl"}, []),
        ("evaluation", {}, ["Name the model: -e infer_experiment=NAME"]),
        ("evaluation", {**OF_AN_EXPERIMENT, "config": "e2e"}, ["One of both, please."]),
        ("evaluation", {"config": "e2e"}, ["infer_config needs its weights: infer_weights"]),
        (
            "evaluation",
            {"config": "e2e", "weights": "a", "weights_on_server": "/b"},
            ["infer_weights and infer_weights_on_server both name weights"],
        ),
        (
            "evaluation",
            {"config": "e2e", "weights_on_server": "b"},
            ["infer_weights_on_server is b: give a full path."],
        ),
        ("inference", OF_AN_EXPERIMENT, ["Name the images: infer_images is a file or folder of this machine"]),
        ("inference", {**OF_AN_EXPERIMENT, "images": "a", "images_on_server": "/b"}, ["Name the images"]),
        (
            "inference",
            {**OF_AN_EXPERIMENT, "images_on_server": "b"},
            ["infer_images_on_server is b: give a full path."],
        ),
        ("inference", {**OF_AN_EXPERIMENT, "images": "a", "threshold": 70}, ["infer_threshold is 70: a score is"]),
        ("evaluation", {**OF_AN_EXPERIMENT, "device": "tpu"}, ["infer_device is tpu: it is gpu or cpu."]),
        ("evaluation", {**OF_AN_EXPERIMENT, "gpus": 0}, ["infer_gpus is 0: it is a number from 1 on"]),
        ("evaluation", {**OF_AN_EXPERIMENT, "name": "../x"}, ["'../x' cannot be the name of a run"]),
    ],
)
def test_what_is_asked_is_checked_and_each_fault_is_a_sentence(
    kind: str, given: dict[str, Any], words: list[str]
) -> None:
    problems = model_problems(asked(**given), kind)
    assert len(problems) == len(words), problems
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_servers_that_share_the_images_have_a_run_each() -> None:
    given = asked(config="/configs/e2e.yaml")
    assert run_name(given, "inference") == "e2e.inference"
    assert run_name({**given, "name": "trip"}, "inference", "gpu1", 1) == "trip"
    assert run_name({**given, "name": "trip"}, "inference", "gpu1", 2) == "trip.gpu1"


def plan(
    tmp_path: Path, kind: str = "inference", given: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """The plan of a run that uses the model of experiment pets, unless `given` says otherwise."""
    given = asked(**(given or OF_AN_EXPERIMENT))
    run = run_name(given, kind)
    nothing = {"state": {"state": "", "final": False, "model": ""}, "facts": {}, "config": {"path": "", "text": ""}}
    experiments = {
        run: {**copy.deepcopy(nothing), "config": {"path": "/prefix/opt/detectron/e2e.yaml", "text": BASELINE}},
        "pets": {
            "state": {"state": "finished", "final": True, "checkpoint": 90, "model": MODEL},
            "facts": {"asked": {"workspace": ""}, "config": "/configs/e2e.yaml"},
            "config": {"path": "/prefix/runs/pets/config.yaml", "text": PETS},
        },
    }
    for name, change in changes.pop("experiments", {}).items():
        experiments[run if name == "run" else name].update(change)
    read = model_configs(given, run, "/prefix")
    entry = {"image_directory": "/data", "annotation_file": "/data/x.json"}
    look = {
        "experiments": {name: experiments[name] for name in read},
        "datasets": dict.fromkeys(("pets", "pets_val", "pets_test", "other", "turned"), entry),
        "reports": {
            "pets": {"classes": 3, "class_names": ["cat", "dog"]},
            "pets_val": {"classes": 3, "class_names": ["cat", "dog"], "fingerprint": SEEN},
            "pets_test": {"classes": 3, "class_names": ["cat", "dog"]},
            "turned": {"classes": 3, "class_names": ["dog", "cat"]},
            "other": {"classes": 5, "class_names": ["a", "b", "c", "d"]},
        },
        "detectron": {"path": "/prefix/opt/detectron/1"},
    }
    settings = {
        "kind": kind,
        "run": run,
        "prefix": "/prefix",
        "stack": "cuda90_wheel",
        "generation": {"path": "/prefix/generations/1"},
        "ladder": PASSED,
        "configs": str(tmp_path),
        "weights": "",
        **changes,
    }
    made: dict[str, Any] = model_plan(given, look, settings)
    return made


def config_of(made: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(made["files"]["config.yaml"])
    return config


def test_an_inference_has_the_experiments_model_and_class_names_and_one_gpu(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made["refusals"] == []
    assert (made["run"], made["gpus"]) == ("pets.inference", 1)
    assert json.loads(made["files"]["classes.json"]) == ["__background__", "cat", "dog"]
    config = config_of(made)
    assert (config["TRAIN"]["WEIGHTS"], config["TEST"]["WEIGHTS"], config["NUM_GPUS"]) == ("", MODEL, 1)
    script = made["files"]["run.sh"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert f"--wts {MODEL} " in script
    assert "--image-ext '*' /prefix/runs/pets.inference/images\n" in script
    assert "export DETECTRON_THRESHOLD=0.7\n" in script
    assert made["facts"]["weights"] == {"path": MODEL}
    assert (made["facts"]["of"], made["facts"]["config"]) == ("pets", "/configs/e2e.yaml")


def test_an_inference_takes_one_gpu_whatever_an_evaluation_would(tmp_path: Path) -> None:
    made = plan(tmp_path, given={**OF_AN_EXPERIMENT, "gpus": 4})
    assert (made["gpus"], config_of(made)["NUM_GPUS"]) == (1, 1)


def test_a_model_of_the_zoo_keeps_cocos_names_and_never_fetches_what_it_was_trained_from(tmp_path: Path) -> None:
    made = plan(tmp_path, given=OF_THE_ZOO, weights="/cache/model_final.pkl", md5="c0ffee")
    assert made["refusals"] == []
    assert "classes.json" not in made["files"]
    assert "://" not in made["files"]["config.yaml"]
    assert made["facts"]["weights"] == {"path": "/cache/model_final.pkl", "md5": "c0ffee"}


def test_what_is_not_on_the_server_yet_is_shown_by_its_name_without_a_login(tmp_path: Path) -> None:
    made = plan(tmp_path, given={**OF_THE_ZOO, "weights": "https://alice:secret@example.org/m.pkl?token=x"})
    assert "  TEST.WEIGHTS: (not there) -> https://example.org/m.pkl?…" in made["lines"]
    assert "secret" not in json.dumps(made) and "token" not in json.dumps(made)


def test_an_experiment_may_be_used_with_other_weights_also_where_it_has_none(tmp_path: Path) -> None:
    untrained = {"pets": {"state": {"state": "running", "model": ""}}}
    given = {**OF_AN_EXPERIMENT, "weights": "other.pkl"}
    made = plan(tmp_path, given=given, weights="/cache/other.pkl", experiments=untrained)
    assert made["refusals"] == []
    assert "The model is that of pets, with other weights" in made["lines"]
    assert config_of(made)["TEST"]["WEIGHTS"] == "/cache/other.pkl"


def test_a_model_of_a_workspace_is_used_with_its_code_and_generation(tmp_path: Path) -> None:
    facts = {"asked": {"workspace": "alice"}, "generation": "/prefix/generations/7"}
    made = plan(tmp_path, experiments={"pets": {"facts": facts}})
    script = made["files"]["run.sh"]
    assert script.index(". /prefix/generations/7/activate.sh") < script.index(". /prefix/work/alice/activate.sh")
    assert made["facts"]["detectron"] == {"path": "/prefix/work/alice/detectron"}


def test_classes_without_a_name_are_numbered_and_it_is_said(tmp_path: Path) -> None:
    unknown = {"pets": {"config": {"path": "/c", "text": PETS.replace("'pets'", "'gone'")}}}
    made = plan(tmp_path, experiments=unknown)
    assert json.loads(made["files"]["classes.json"]) == ["__background__", "class 1", "class 2"]
    assert any("are shown by number: -e infer_datasets=NAME" in line for line in made["lines"])


def test_an_evaluation_tests_on_its_datasets_on_several_gpus(tmp_path: Path) -> None:
    made = plan(tmp_path, "evaluation", {**OF_AN_EXPERIMENT, "gpus": 2})
    assert made["refusals"] == []
    assert (made["gpus"], config_of(made)["NUM_GPUS"]) == (2, 2)
    assert config_of(made)["TEST"]["FORCE_JSON_DATASET_EVAL"] is True
    assert made["files"]["run.sh"].endswith(
        '"$DETECTRON_TOOLS"/test_net.py --multi-gpu-testing --cfg /prefix/runs/pets.evaluation/config.yaml\n'
    )
    assert made["facts"]["datasets"] == {"pets_val": fingerprint({"fingerprint": SEEN})}


def test_on_the_cpu_no_gpu_is_asked_for(tmp_path: Path) -> None:
    made = plan(tmp_path, given={**OF_AN_EXPERIMENT, "device": "cpu"}, ladder=NO_GPU)
    assert (made["refusals"], made["gpus"]) == ([], 0)
    assert "export DETECTRON_DEVICE=cpu\n" in made["files"]["run.sh"]


@pytest.mark.parametrize("kind", ["inference", "evaluation"])
@pytest.mark.parametrize("ladder", [NO_GPU, TOO_NEW])
def test_without_a_gpu_that_works_it_is_refused_naming_the_cpu(
    tmp_path: Path, kind: str, ladder: dict[str, Any]
) -> None:
    [refusal] = plan(tmp_path, kind, ladder=ladder)["refusals"]
    assert "Without one: -e infer_device=cpu" in refusal


@pytest.mark.parametrize(
    ("state", "was", "words"),
    [
        ("finished", "inference", ""),
        ("died", "inference", ""),
        ("running", "inference", "is running already: on gpu1. Wait for it with -e infer_start=false"),
        ("stopped", "training", "is the name of a training on this server, which stays as it is"),
        ("finished", "evaluation", "is the name of a evaluation on this server, which stays as it is"),
    ],
)
def test_an_inference_replaces_an_earlier_one_and_nothing_else(
    tmp_path: Path, state: str, was: str, words: str
) -> None:
    earlier = {"state": {"state": state, "where": "gpu1", "model": ""}, "facts": {"kind": was}}
    refusals = plan(tmp_path, experiments={"run": earlier})["refusals"]
    assert len(refusals) == bool(words)
    assert all(words in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ({"state": {"state": "", "model": ""}}, "There is no experiment pets on this server"),
        ({"state": {"state": "running", "model": ""}}, "Experiment pets (running) has written no model yet"),
        ({"facts": {"kind": "evaluation"}}, "pets is a run of kind evaluation and has no model"),
        ({"config": {"path": "/c", "text": PETS.replace("FASTER_RCNN: true", "RPN_ONLY: true")}}, "(MODEL.RPN_ONLY)"),
        ({"config": {"path": "/c", "text": PETS.replace(", FASTER_RCNN: true", "")}}, "does not find boxes itself"),
        ({"config": {"path": "/c", "text": "TRAIN: ["}}, "/c: This is no YAML"),
    ],
)
def test_a_model_that_cannot_draw_is_refused(tmp_path: Path, trained: dict[str, Any], words: str) -> None:
    [refusal] = plan(tmp_path, experiments={"pets": trained})["refusals"]
    assert words in refusal


def test_a_config_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    [refusal] = plan(tmp_path, given=OF_THE_ZOO, experiments={"run": {"config": {"path": "", "text": ""}}})["refusals"]
    assert refusal.startswith("There is no config e2e: neither ")


@pytest.mark.parametrize(
    ("datasets", "options", "words"),
    [
        ("pets_val", {}, ""),
        ("pest_val", {}, "nobody has said where pest_val is on this server"),
        ("pets_test", {}, "Detectron evaluates no dataset whose name has 'test' in it, such as pets_test"),
        ("other", {}, "other has 4 categories, and the model 2 and the background"),
        ("turned", {}, "class 1 is cat in pets, and dog in turned"),
        ("pets_val", {"TEST.FORCE_JSON_DATASET_EVAL": False}, "no evaluator for a dataset called pets_val"),
        (
            "pets_val",
            {"MODEL.KEYPOINTS_ON": True},
            "keypoints only on a dataset whose name begins with keypoints_coco_",
        ),
    ],
)
def test_what_detectron_would_not_evaluate_is_refused_before_the_testing(
    tmp_path: Path, datasets: str, options: dict[str, Any], words: str
) -> None:
    given = {**OF_AN_EXPERIMENT, "datasets": datasets, "options": options}
    refusals = plan(tmp_path, "evaluation", given)["refusals"]
    assert any(words in refusal for refusal in refusals) if words else refusals == []


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        (
            "other",
            "other has 4 categories, and the model 2 and the background. Name the dataset that it was trained on.",
        ),
        ("nowhere", "nobody has said where nowhere is on this server"),
    ],
)
def test_class_names_of_another_dataset_are_refused(tmp_path: Path, datasets: str, words: str) -> None:
    [refusal] = plan(tmp_path, given={**OF_AN_EXPERIMENT, "datasets": datasets})["refusals"]
    assert words in refusal


def test_images_are_listed_with_time_and_detections_and_the_empty_ones_are_named() -> None:
    results = {
        "images": [
            {"image": "b.jpg", "seconds": 0.5, "detections": 0, "pictures": []},
            {"image": "a.jpg", "seconds": 1.25, "detections": 1, "pictures": ["a.jpg.pdf", "a.jpg.png"]},
        ],
        "threshold": 0.7,
    }
    assert inference_lines(results, "gpu1", "results/x/gpu1") == [
        "gpu1: 2 images, 1.25 s each (median), in results/x/gpu1",
        "  a.jpg      1.25 s  1 detection: a.jpg.pdf, a.jpg.png",
        "  b.jpg      0.50 s  no detection with a score of 0.7 or more",
        "  One without a detection has no picture. A lower score shows more: -e infer_threshold=0.3",
    ]
    damaged = inference_lines({"images": [], "unreadable": ["c.bmp"]}, "gpu1", "x")
    assert damaged == ["gpu1: no image was done.", "  c.bmp  is damaged, or no image that OpenCV knows"]
    assert inference_lines({}, "gpu1", "x") == ["gpu1: no image was done."]
    many = {"images": [{**results["images"][0], "image": f"{number:03}"} for number in range(100)], "threshold": 0.7}  # type: ignore[index]
    assert "  … and 40 more: results.json there has all." in inference_lines(many, "gpu1", "x")


def test_tables_are_in_percent_and_say_what_there_was_none_of() -> None:
    numbers = {"AP": 0.3771, "AP50": 0.592, "APs": -1.0}
    assert evaluation_lines({"pets_val": {"box": numbers, "mask": {"AP": 0.0}}}) == [
        "pets_val",
        "  task      AP    AP50     APs",
        "  box     37.7    59.2       -",
        "  mask     0.0       -       -",
        "  (in percent, as papers have it)",
    ]
    assert evaluation_lines({}) == []


def test_of_images_that_are_not_there_a_sentence_is_told() -> None:
    assert (
        images_here("/nowhere/at/all")["problem"]
        == "There are no images at /nowhere/at/all: No such file or directory."
    )
