"""Configs are scaled exactly, read by Detectron as they are meant, and refused where they would cost days."""

from __future__ import annotations

import ast
import itertools
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.module_utils.detectron_config import (
    ConfigError,
    decode,
    derive,
    differences,
    notes,
    option,
    parse,
    render,
    resume_conflicts,
    scaled,
    unscaled,
)
from detectron_config import FilterModule

ROOT = Path(__file__).resolve().parents[2]
# The facts of Detectron's tutorial, of its Mask R-CNN with FPN, and of its models with one image on each GPU.
TUTORIAL = """\
MODEL: {TYPE: generalized_rcnn, NUM_CLASSES: 81, FASTER_RCNN: True}
NUM_GPUS: 1
SOLVER:
  LR_POLICY: steps_with_decay
  BASE_LR: 0.0025
  MAX_ITER: 60000
  STEPS: [0, 30000, 40000]
TRAIN:
  WEIGHTS: /weights/R-50.pkl
  DATASETS: ('coco_2014_train',)
TEST:
  DATASETS: ('coco_2014_minival',)
OUTPUT_DIR: .
"""
MASK = """\
MODEL:
  TYPE: generalized_rcnn
  NUM_CLASSES: 81
  FASTER_RCNN: True
  MASK_ON: True
NUM_GPUS: 8
SOLVER:
  WEIGHT_DECAY: 0.0001
  LR_POLICY: steps_with_decay
  BASE_LR: 0.02
  GAMMA: 0.1
  MAX_ITER: 90000
  STEPS: [0, 60000, 80000]
MRCNN:
  DILATION: 1  # default 2
TRAIN:
  WEIGHTS: https://example.org/R-50.pkl
  DATASETS: ('coco_2014_train', 'coco_2014_valminusminival')
  SCALES: (800,)
TEST:
  DATASETS: ('coco_2014_minival',)
  NMS: 0.5
OUTPUT_DIR: .
"""
ONE_IMAGE = re.sub("BASE_LR: .*", "BASE_LR: 0.01", MASK).replace("SCALES", "IMS_PER_BATCH: 1\n  SCALES")
FAST = MASK.replace("FASTER_RCNN: True", "FASTER_RCNN: False").replace(
    "  SCALES: (800,)", "  PROPOSAL_FILES: ('a.pkl', 'b.pkl')\n  SCALES: (800,)"
)
RETINANET = MASK.replace("0.02", "0.01") + "RETINANET: {RETINANET_ON: True}\n"
OWN = {"train": ["cells_train"], "test": ["cells_val"], "categories": 3}


def solver(config: dict[str, Any]) -> tuple[float, int, list[int]]:
    return (
        option(config, "SOLVER.BASE_LR"),
        option(config, "SOLVER.MAX_ITER"),
        option(config, "SOLVER.STEPS"),
    )


def changed(text: str, key: str, value: Any) -> dict[str, Any]:
    config: dict[str, Any] = parse(text)
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = value
    return config


# --- The rule


@pytest.mark.parametrize(
    ("text", "gpus", "expected"),
    [
        (TUTORIAL, 1, (0.0025, 60000, [0, 30000, 40000])),
        (TUTORIAL, 2, (0.005, 30000, [0, 15000, 20000])),
        (TUTORIAL, 4, (0.01, 15000, [0, 7500, 10000])),
        (TUTORIAL, 8, (0.02, 7500, [0, 3750, 5000])),
        (MASK, 1, (0.0025, 720000, [0, 480000, 640000])),
        (MASK, 2, (0.005, 360000, [0, 240000, 320000])),
        (MASK, 8, (0.02, 90000, [0, 60000, 80000])),
        # Rounded to the nearest: 80000 / (3/8) = 213333.3, 80000 / (6/8) = 106666.7
        (MASK, 3, (0.0075, 240000, [0, 160000, 213333])),
        (MASK, 5, (0.0125, 144000, [0, 96000, 128000])),
        (MASK, 6, (0.015, 120000, [0, 80000, 106667])),
        (ONE_IMAGE, 2, (0.0025, 360000, [0, 240000, 320000])),
        (ONE_IMAGE, 16, (0.02, 45000, [0, 30000, 40000])),
    ],
)
def test_the_schedule_is_the_rules_to_the_digit(text: str, gpus: int, expected: Any) -> None:
    config = derive(text, gpus)
    assert solver(config) == expected
    assert repr(expected[0]) in render(config)
    assert config["NUM_GPUS"] == gpus


def test_images_on_each_gpu_count_as_gpus_do() -> None:
    config = derive(MASK, 4, options={"TRAIN.IMS_PER_BATCH": 1})
    assert solver(config) == solver(derive(MASK, 2))
    assert config["TRAIN"]["IMS_PER_BATCH"] == 1


def test_halves_are_rounded_up() -> None:
    config = derive(TUTORIAL.replace("60000", "60001"), 2)
    assert config["SOLVER"]["MAX_ITER"] == 30001


def test_where_a_config_is_silent_detectrons_defaults_are_scaled() -> None:
    config = derive("MODEL: {NUM_CLASSES: 2, FASTER_RCNN: True}", 4)
    assert config["SOLVER"] == {"BASE_LR": 0.004, "MAX_ITER": 10000, "STEP_SIZE": 7500}
    unchanged = derive("MODEL: {NUM_CLASSES: 2, FASTER_RCNN: True}", 1)
    assert "SOLVER" not in unchanged


def test_each_policys_own_numbers_are_scaled_and_no_others() -> None:
    lrs = MASK.replace("steps_with_decay", "steps_with_lrs").replace("BASE_LR: 0.02", "LRS: [0.02, 0.002, 0.0002]")
    config = derive(lrs, 2)["SOLVER"]
    assert config["LRS"] == [0.005, 0.0005, 0.00005]
    assert "BASE_LR" not in config
    for policy in ("cosine_decay", "exp_decay"):
        text = f"NUM_GPUS: 8\nSOLVER: {{LR_POLICY: {policy}, BASE_LR: 0.02, MAX_ITER: 90000}}"
        assert derive(text, 2)["SOLVER"] == {"LR_POLICY": policy, "BASE_LR": 0.005, "MAX_ITER": 360000}


def test_warm_up_and_checkpoints_are_left_as_they_are() -> None:
    text = MASK.replace("  GAMMA", "  WARM_UP_ITERS: 1000\n  WARM_UP_FACTOR: 0.1\n  GAMMA").replace(
        "SCALES", "SNAPSHOT_ITERS: 20000\n  SCALES"
    )
    config = derive(text, 2)
    assert config["SOLVER"]["WARM_UP_ITERS"] == 1000
    assert config["SOLVER"]["WARM_UP_FACTOR"] == 0.1
    assert config["TRAIN"]["SNAPSHOT_ITERS"] == 20000


GPUS = [1, 2, 3, 4, 5, 6, 7, 8, 16]
SHAPES = list(itertools.product(GPUS, [1, 2, 3], GPUS, [1, 2, 4]))


def some_schedule(seed: int, gpus: int, images: int) -> str:
    some = random.Random(seed)
    steps = sorted(some.sample(range(1, 200_000), some.randrange(1, 5)))
    rate = some.choice(["0.02", "0.01", "0.0025", "0.0001", "1e-5", "0.3", "0.001", "2.5e-06"])
    return yaml.dump(
        {
            "NUM_GPUS": gpus,
            "SOLVER": {
                "LR_POLICY": "steps_with_decay",
                "BASE_LR": rate,
                "MAX_ITER": steps[-1] + some.randrange(1, 90_000),
                "STEPS": [0, *steps],
                "STEP_SIZE": some.randrange(1, 90_000),
            },
            "TRAIN": {"IMS_PER_BATCH": images},
        }
    )


def test_every_schedule_keeps_rate_per_image_and_images_seen() -> None:
    """Over all shapes: rates exact to the last bit, iterations to half of one, order and zero kept."""
    for seed, (gpus, images, to_gpus, to_images) in enumerate(SHAPES):
        text = some_schedule(seed, gpus, images)
        before, after = parse(text), derive(text, to_gpus, options={"TRAIN.IMS_PER_BATCH": to_images})
        k = Fraction(to_gpus * to_images, gpus * images)
        rate, iterations, steps = solver(after)
        assert rate == float(Fraction(str(before["SOLVER"]["BASE_LR"])) * k)
        old = [before["SOLVER"][name] for name in ("MAX_ITER", "STEP_SIZE")] + before["SOLVER"]["STEPS"]
        new = [iterations, after["SOLVER"]["STEP_SIZE"], *steps]
        for was, now in zip(old, new, strict=True):
            assert type(now) is int
            assert abs(now - was / k) <= Fraction(1, 2) or now == 1
        assert steps[0] == 0
        assert steps == sorted(steps)
        assert steps[-1] <= iterations


def test_there_and_back_is_where_it_began() -> None:
    for seed, (gpus, images, to_gpus, to_images) in enumerate(SHAPES):
        text = some_schedule(seed, gpus, images)
        there = render(derive(text, to_gpus, options={"TRAIN.IMS_PER_BATCH": to_images}))
        back = derive(there, gpus, options={"TRAIN.IMS_PER_BATCH": images})
        k = Fraction(to_gpus * to_images, gpus * images)
        assert solver(back)[0] == pytest.approx(float(option(parse(text), "SOLVER.BASE_LR")), rel=1e-15)
        for was, now in zip(parse(text)["SOLVER"]["STEPS"], solver(back)[2], strict=True):
            assert abs(was - now) <= k / 2 + 1


def test_what_the_rule_gives_is_never_called_unscaled() -> None:
    for seed, (gpus, images, to_gpus, to_images) in enumerate(SHAPES):
        text = some_schedule(seed, gpus, images)
        config = derive(text, to_gpus, options={"TRAIN.IMS_PER_BATCH": to_images})
        if min(option(config, "SOLVER.STEPS")[1:]) > 1:  # below, nothing is left to be rounded
            assert unscaled(config, parse(text)) is None


# --- Datasets, weights, options


def test_an_own_dataset_is_evaluated_and_has_a_class_for_the_background() -> None:
    config = derive(MASK, 2, **OWN)
    assert config["TRAIN"]["DATASETS"] == "('cells_train',)"
    assert config["TEST"]["DATASETS"] == "('cells_val',)"
    assert config["MODEL"]["NUM_CLASSES"] == 4
    assert config["TEST"]["FORCE_JSON_DATASET_EVAL"] is True


@pytest.mark.parametrize(
    ("name", "masks", "forced"),
    [
        ("cells_val", False, True),
        ("my_coco_val", True, False),
        ("coco_2014_minival", True, False),
        ("cityscapes_mine", True, False),
        ("voc_mine", False, False),
        ("voc_mine", True, True),  # Detectron evaluates boxes of VOC, but no masks
        ("coco2017", True, True),
        ("my_voc_val", False, True),
    ],
)
def test_evaluation_is_forced_where_a_name_has_no_evaluator(name: str, masks: bool, forced: bool) -> None:
    config = derive(MASK, 1, test=[name], options={"MODEL.MASK_ON": masks})
    assert config["TEST"].get("FORCE_JSON_DATASET_EVAL", False) is forced


def test_options_win_over_all_else_and_have_their_types() -> None:
    options = {
        "SOLVER.MAX_ITER": 100,
        "TRAIN.SCALES": [600, 700],
        "TEST.NMS": 1,
        "TRAIN.FG_THRESH": 1,
        "TEST.FORCE_JSON_DATASET_EVAL": "False",
        "TEST.BBOX_AUG.ENABLED": "True",
        "TRAIN.WEIGHTS": "",
        "RNG_SEED": 5,
    }
    config = derive(MASK, 2, **OWN, options=options)
    assert config["SOLVER"]["MAX_ITER"] == 100
    assert config["TRAIN"]["SCALES"] == "(600, 700)"
    assert repr(config["TEST"]["NMS"]) == repr(config["TRAIN"]["FG_THRESH"]) == "1.0"  # Detectron refuses 1
    assert config["TEST"]["FORCE_JSON_DATASET_EVAL"] is False
    assert config["TEST"]["BBOX_AUG"] == {"ENABLED": True}
    assert config["TRAIN"]["WEIGHTS"] == ""
    assert config["RNG_SEED"] == 5


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"gpus": 0}, "GPUs: 0; it has to be a whole number of at least 1."),
        ({"gpus": 2.0}, "GPUs: 2.0"),
        ({"gpus": True}, "GPUs: True"),
        ({"categories": 0}, "Categories: 0"),
        ({"train": ["a b"]}, "TRAIN.DATASETS: a b is no name of a dataset"),
        ({"test": ["x'); import os"]}, "TEST.DATASETS: .* is no name of a dataset"),
        ({"output": "(1,)"}, r"OUTPUT_DIR: \(1,\) is no path"),
        ({"weights": "a\nb"}, "TRAIN.WEIGHTS: .* is no path"),
        ({"options": {"SOLVR.BASE_LR": 1.0}}, "SOLVR.BASE_LR: there is no section SOLVR. There are: .*SOLVER"),
        ({"options": {"BASE_LR": 1.0}}, "BASE_LR: an option has the name of its section before it"),
        ({"options": {"SOLVER": 1.0}}, "SOLVER is a section: name an option of it"),
        ({"options": {"SOLVER.MAX_ITER": 1.5}}, "SOLVER.MAX_ITER is 1.5; Detectron takes a whole number there"),
        ({"options": {"SOLVER.BASE_LR": "fast"}}, "SOLVER.BASE_LR is fast; Detectron takes a number"),
        ({"options": {"TRAIN.SCALES": 600}}, "TRAIN.SCALES is 600; Detectron takes a tuple or list there"),
        ({"options": {"MODEL.MASK_ON": 1}}, "MODEL.MASK_ON is 1; Detectron takes True or False there"),
        ({"options": {"TRAIN.SCALES": object()}}, "cannot stand in a config"),
        ({"options": {"NUM_GPUS": 4}}, "NUM_GPUS is 4 among the options, but the number of GPUs is 1"),
        ({"options": {"TRAIN.SNAPSHOT_ITERS": 2}, "gpus": 4}, r"Detectron divides it by NUM_GPUS \(4\)"),
        ({"options": {"TRAIN.IMS_PER_BATCH": 0}}, "TRAIN.IMS_PER_BATCH is 0; it has to be a whole number"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        derive(MASK, **asked)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "This is no config of Detectron"),
        ("just words", "This is no config of Detectron"),
        ("[1, 2]", "This is no config of Detectron"),
        ("1: 2", "1 is no name of an option"),
        ("SOLVER: 3", "SOLVER is a section; 3 stands in its place"),
        ("SOLVER: {", "This is no YAML in line 1"),
        ("a: !!python/object/apply:os.getcwd []", "This is no YAML in line 1: could not determine a constructor"),
        ("TRAIN: {A: 1}\nTRAIN: {B: 2}", "TRAIN stands twice in one section, again in line 2"),
        (MASK + "  NMS: 1", "This is no YAML in line"),
        ("[" * 5000, "This is no config: it is nested too deeply"),
        (MASK.replace("steps_with_decay", "poly"), "SOLVER.LR_POLICY is poly; Detectron has step, "),
        (MASK.replace("[0, 60000, 80000]", "[60000, 80000]"), "its first number has to be 0"),
        (MASK.replace("[0, 60000, 80000]", "[]"), "its first number has to be 0"),
        (MASK.replace("steps_with_decay", "steps_with_lrs"), "SOLVER.LRS has 0 rates for 3 SOLVER.STEPS"),
        (MASK.replace("60000", "60000.5"), "SOLVER.STEPS has 60000.5; iterations are whole numbers"),
        (MASK.replace("60000", "-1"), "SOLVER.STEPS has -1; iterations are whole numbers"),
        (MASK.replace("90000", "9e4"), "SOLVER.MAX_ITER is 90000.0; Detectron takes a whole number"),
        (MASK.replace("0.02", ".nan"), "SOLVER.BASE_LR is nan; it has to be a number"),
        (MASK.replace("0.02", "'" + "-" * 100_000 + "1'"), "cannot be read|SOLVER.BASE_LR is ---"),
        (MASK.replace("NUM_GPUS: 8", "NUM_GPUS: 0"), "NUM_GPUS is 0; it has to be a whole number of at least 1"),
        (FAST.replace("'a.pkl', 'b.pkl'", "'a.pkl',"), "TRAIN.PROPOSAL_FILES and TRAIN.DATASETS name 1 and 2"),
    ],
)
def test_a_config_that_detectron_would_fail_on_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        derive(text, 2)
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)


def test_proposals_of_other_datasets_are_named() -> None:
    with pytest.raises(ConfigError, match=r"TRAIN.PROPOSAL_FILES and TRAIN.DATASETS name 2 and 1.* e2e_ model"):
        derive(FAST, 2, train=["cells_train"])
    config = derive(FAST, 2, train=["a", "b"])
    assert any(note.startswith("TRAIN.PROPOSAL_FILES are still those of other") for note in notes(config, parse(FAST)))
    given = derive(FAST, 2, train=["a"], options={"TRAIN.PROPOSAL_FILES": ["a.pkl"]})
    assert not any("TRAIN.PROPOSAL_FILES" in note for note in notes(given, parse(FAST)))


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        (
            {"test": ["cells_test"]},
            "Detectron evaluates no dataset whose name has 'test' in it, such as cells_test",
        ),
        ({"test": ["latest_coco_val"]}, "such as latest_coco_val"),
        ({"train": ["cells_train"]}, "TEST.DATASETS is still coco_2014_minival, while TRAIN.DATASETS is cells_train"),
        ({"train": ["cells_train"]}, "MODEL.NUM_CLASSES is still 81"),
        ({"weights": ""}, "TRAIN.WEIGHTS names none: training starts from random weights"),
        ({}, "TRAIN.WEIGHTS is an address, which the server has to reach"),
        ({"test": ["a"], "options": {"MODEL.KEYPOINTS_ON": True}}, "Only COCO keypoints are currently supported"),
        ({"test": ["a"], "options": {"TEST.FORCE_JSON_DATASET_EVAL": False}}, "'No evaluator for dataset: a'"),
    ],
)
def test_what_would_be_noticed_after_days_is_said_before(asked: dict[str, Any], note: str) -> None:
    config = derive(MASK, 2, **asked)
    assert any(note in said for said in notes(config, parse(MASK)))
    complete = derive(MASK, 2, **OWN, weights="/weights/R-50.pkl")
    assert notes(complete, parse(MASK)) == []


# --- What Detectron reads


def test_the_yaml_says_what_the_config_says() -> None:
    config = derive(MASK, 2, **OWN, weights="", output="/home/ä/runs/first", options={"TRAIN.SCALES": (600,)})
    text = render(config, "Derived\n\nfor 2 GPUs")
    assert yaml.safe_load(text) == config
    assert text.startswith("# Derived\n#\n# for 2 GPUs\n")
    assert "  STEPS: [0, 240000, 320000]\n" in text
    assert "  DATASETS: ('cells_train',)\n" in text
    assert max(map(len, text.splitlines())) < 120


def test_numbers_are_written_as_yaml_reads_numbers() -> None:
    """PyYAML takes 1e-05 for a string; Detectron would make a number of it, but whoever reads the file should too."""
    text = render(derive(MASK.replace("0.02", "0.00008"), 1))
    assert yaml.safe_load(text)["SOLVER"]["BASE_LR"] == 0.00001


@pytest.mark.parametrize("value", ["('a', 'b')", "[1, 2]", "8", "0.5", "True", "None", "a/b", "", "'quoted'", 7, None])
def test_strings_are_taken_for_what_detectron_takes_them_for(value: Any) -> None:
    try:
        expected = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        expected = value
    assert decode(value) == expected


def test_what_ansible_hands_in_is_written_as_plain_yaml() -> None:
    """Its strings, numbers and lists are of classes of its own, which PyYAML refuses."""

    class TaggedStr(str):
        pass

    class TaggedInt(int):
        pass

    class TaggedList(list):  # type: ignore[type-arg]
        pass

    config = derive(
        TaggedStr(MASK),
        TaggedInt(2),
        train=TaggedList([TaggedStr("a")]),
        weights=TaggedStr("/w"),
        options={TaggedStr("TRAIN.SCALES"): TaggedList([TaggedInt(5)]), "MODEL.TYPE": TaggedStr("x")},
    )
    assert parse(render(config)) == config
    assert type(config["NUM_GPUS"]) is int


# --- Judging


def test_the_documents_first_experiment_is_caught() -> None:
    """Only NUM_GPUS lowered, under the baseline's name: what ended in 'Negative Area'."""
    mine = changed(MASK, "NUM_GPUS", 2)
    found = unscaled(mine, parse(MASK))
    assert found is not None
    assert (found.rate, found.length) == (4, 0.25)
    assert str(found) == (
        "2 GPUs x 2 images are 4 per iteration: SOLVER.BASE_LR 0.02 is 4 times what the linear scaling rule gives "
        "(0.005); SOLVER.MAX_ITER 90000 is 0.25 times the rule's 360000; SOLVER.STEPS [0, 60000, 80000] are not the "
        "rule's. Training would diverge, mostly within some hundred iterations: 'Loss is NaN', or 'Negative areas "
        "founds' before that. The rule gives SOLVER.BASE_LR 0.005, SOLVER.MAX_ITER 360000, SOLVER.STEPS [0, 240000, "
        "320000]."
    )
    without_baseline = unscaled(mine)
    assert without_baseline is not None
    assert (without_baseline.rate, without_baseline.length) == (4, None)
    assert "Divide SOLVER.BASE_LR by 4, and multiply" in without_baseline.remedy


@pytest.mark.parametrize("text", [MASK, ONE_IMAGE, TUTORIAL, RETINANET, FAST])
def test_detectrons_own_configs_are_scaled(text: str) -> None:
    assert unscaled(parse(text)) is None
    assert unscaled(parse(text), parse(text)) is None


@pytest.mark.parametrize(
    ("config", "baseline", "cause", "consequence"),
    [
        (changed(MASK, "TRAIN.IMS_PER_BATCH", 1), MASK, "8 GPUs x 1 images are 8 per iteration", "would diverge"),
        (changed(MASK, "SOLVER.BASE_LR", 0.01), MASK, "0.01 is 0.5 times", "learn more slowly"),
        (changed(MASK, "SOLVER.MAX_ITER", 9000), MASK, "9000 is 0.1 times the rule's 90000", "0.1 times the images"),
        (changed(MASK, "SOLVER.MAX_ITER", 180000), MASK, "180000 is 2 times", "would not be the baseline's"),
        (changed(MASK, "SOLVER.STEPS", [0, 1000, 2000]), MASK, "are not the rule's", "would not be the baseline's"),
        (changed(RETINANET, "SOLVER.BASE_LR", 0.02), None, "0.02 is 2 times that of Detectron's own", "would diverge"),
        (changed(MASK, "SOLVER.BASE_LR", "0.04"), None, "0.04 is 2 times", "would diverge"),
    ],
)
def test_each_way_to_miss_the_rule_says_what_it_would_do(
    config: dict[str, Any], baseline: str | None, cause: str, consequence: str
) -> None:
    found = unscaled(config, parse(baseline) if baseline else None)
    assert found is not None
    assert cause in found.cause
    assert consequence in found.consequence


def test_rates_by_steps_are_judged_by_their_highest() -> None:
    lrs = MASK.replace("steps_with_decay", "steps_with_lrs").replace("BASE_LR: 0.02", "LRS: [0.02, 0.002, 0.0002]")
    assert unscaled(parse(lrs), parse(MASK)) is None
    found = unscaled(changed(lrs, "NUM_GPUS", 2), parse(lrs))
    assert found is not None
    assert found.cause.startswith("2 GPUs x 2 images are 4 per iteration: SOLVER.LRS 0.02 is 4 times")


def test_what_follows_the_rule_by_hand_passes() -> None:
    by_hand = derive(MASK, 3)
    by_hand["SOLVER"]["STEPS"] = [0, 160000, 213000]
    assert unscaled(by_hand, parse(MASK)) is None


def test_a_lower_rate_of_an_own_config_is_its_own_affair() -> None:
    assert unscaled(changed(MASK, "SOLVER.BASE_LR", 0.001)) is None


def test_iterations_set_by_name_are_meant_but_a_rate_is_not() -> None:
    short = derive(MASK, 2, options={"SOLVER.MAX_ITER": 1000})
    assert unscaled(short, parse(MASK)) is not None
    assert unscaled(short, parse(MASK), by_name=["SOLVER.MAX_ITER"]) is None
    fast = derive(MASK, 2, options={"SOLVER.BASE_LR": 0.02})
    assert unscaled(fast, parse(MASK), by_name=["SOLVER.BASE_LR"]) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NUM_GPUS", 4),
        ("TRAIN.IMS_PER_BATCH", 1),
        ("SOLVER.BASE_LR", 0.01),
        ("SOLVER.MAX_ITER", 100),
        ("SOLVER.STEPS", [0, 50]),
        ("SOLVER.LR_POLICY", "cosine_decay"),
        ("SOLVER.WARM_UP_ITERS", 1),
        ("MODEL.NUM_CLASSES", 4),
        ("TRAIN.DATASETS", "('cells_train',)"),
    ],
)
def test_a_checkpoint_of_another_schedule_is_not_gone_on_from(key: str, value: Any) -> None:
    (conflict,) = resume_conflicts(parse(MASK), changed(MASK, key, value))
    assert conflict.startswith(f"{key} was ")


def test_a_checkpoint_is_gone_on_from_where_only_other_things_differ() -> None:
    other = changed(MASK, "OUTPUT_DIR", "/elsewhere")
    other["TEST"]["NMS"] = 0.4
    other["TRAIN"]["SNAPSHOT_ITERS"] = 100
    other["TRAIN"]["DATASETS"] = ["coco_2014_train", "coco_2014_valminusminival"]  # the same, as a list
    other["SOLVER"]["BASE_LR"] = "0.02"
    other["NUM_GPUS"] = 8
    assert resume_conflicts(parse(MASK), other) == []


def test_differences_are_of_meaning_not_of_spelling() -> None:
    same = changed(MASK, "TEST.DATASETS", ["coco_2014_minival"])
    same["SOLVER"]["STEPS"] = "(0, 60000, 80000)"
    assert differences(parse(MASK), same) == []
    other = changed(MASK, "MODEL.MASK_ON", 1)
    other["TEST"].pop("NMS")
    assert [str(difference) for difference in differences(parse(MASK), other)] == [
        "MODEL.MASK_ON: True -> 1",
        "TEST.NMS: 0.5 -> (not there)",
    ]


def test_the_schedule_alone_can_be_asked_for() -> None:
    assert scaled(parse(MASK), 2) == {
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.MAX_ITER": 360000,
        "SOLVER.STEPS": [0, 240000, 320000],
    }


# --- Filters and the command


def test_the_filters_say_what_the_functions_say() -> None:
    filters = FilterModule().filters()
    derived = filters["detectron_config"](MASK, gpus=2, comment="x", **OWN)
    assert derived["config"] == derive(MASK, 2, **OWN)
    assert parse(derived["text"]) == derived["config"]
    assert "SOLVER.BASE_LR: 0.02 -> 0.005" in derived["differences"]
    assert derived["notes"] == notes(derived["config"], parse(MASK))
    assert filters["detectron_unscaled"](derived["text"], MASK) == ""
    assert "4 times" in filters["detectron_unscaled"](MASK.replace("NUM_GPUS: 8", "NUM_GPUS: 2"))
    assert filters["detectron_resume_conflicts"](MASK, MASK) == []
    with pytest.raises(AnsibleFilterError, match="GPUs: 0"):
        filters["detectron_config"](MASK, gpus=0)


def command(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "scripts/derive_config.py"), *arguments]
    return subprocess.run(program, input=text, capture_output=True, text=True, timeout=60)


def test_the_command_writes_the_config_and_says_what_differs(tmp_path: Path) -> None:
    baseline, mine = tmp_path / "baseline.yaml", tmp_path / "mine.yaml"
    baseline.write_text(MASK)
    asked = [str(baseline), "--gpus", "2", "--train", "cells_train", "--test", "cells_val", "--categories", "3"]
    done = command(*asked, "--weights", "random", "--set", "TRAIN.SCALES=(600,)", "--file", str(mine))
    assert (done.returncode, done.stdout) == (0, "")
    assert "  SOLVER.MAX_ITER: 90000 -> 360000\n" in done.stderr
    assert "Note: TRAIN.WEIGHTS names none" in done.stderr
    expected = derive(MASK, 2, **OWN, weights="", options={"TRAIN.SCALES": "(600,)"})
    assert parse(mine.read_text()) == expected
    assert parse(command(*asked, text="").stdout) == derive(MASK, 2, **OWN)
    assert parse(command("-", "--gpus", "3", text=MASK).stdout) == derive(MASK, 3)
    # Again: the same; with other text: refused, and the file is as it was.
    assert command(*asked, "--weights", "random", "--set", "TRAIN.SCALES=(600,)", "--file", str(mine)).returncode == 0
    refused = command(*asked, "--file", str(mine))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "is there already, with other text" in refused.stderr
    assert parse(mine.read_text()) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["baseline.yaml", "mine.yaml"]


def test_the_command_judges_a_schedule(tmp_path: Path) -> None:
    (tmp_path / "baseline.yaml").write_text(MASK)
    with_baseline = ["--judge", "--baseline", str(tmp_path / "baseline.yaml")]
    unscaled_ = command("-", *with_baseline, text=MASK.replace("NUM_GPUS: 8", "NUM_GPUS: 2"))
    assert unscaled_.returncode == 1
    assert "SOLVER.BASE_LR 0.02 is 4 times" in unscaled_.stdout
    assert command("-", *with_baseline, text=MASK).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/file"], "/no/such/file cannot be read"),
        (["-", "--gpus", "0"], "GPUs: 0"),
        (["-", "--set", "TEST.NMS"], "--set TEST.NMS: write KEY=VALUE."),
        (["-", "--set", "TSET.NMS=1"], "there is no section TSET"),
        (["-", "--file", "/no/such/folder/x.yaml"], "/no/such/folder/x.yaml cannot be written"),
    ],
)
def test_the_command_refuses_in_one_line(arguments: list[str], says: str) -> None:
    done = command(*arguments, text=MASK)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
