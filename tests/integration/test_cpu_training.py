"""Training without a GPU, on an installed stack with the stand-in for Detectron and the real Caffe2."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.integration.site_run import ROOT, FirstRun, Site

BASELINE = "$DETECTRON/configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml"


def run_program(site: Site, program: Path) -> str:
    """What a program of the repository prints in the activated environment, with the tools on its path."""
    return site.shell(f""". {site.prefix}/current/activate.sh
PYTHONPATH=$DETECTRON_TOOLS:$PYTHONPATH python - <<'PROGRAM' 2>&1 || echo "exit status $?"
{program.read_text()}
PROGRAM
""")


def run_tool(site: Site, command: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a tool, started from another folder in a shell that activated the stack. $THINGS is
    `folder`."""
    begin = f". {site.prefix}/current/activate.sh\ncd /\nTHINGS={folder(site)}\n"
    exports = "".join(f"export {name}={value}\n" for name, value in environment.items())
    said = site.shell(f"{begin}{exports}{command} 2>&1 && echo 0 || echo $?\n")
    output, _, status = said.rstrip("\n").rpartition("\n")
    return int(status), output


def folder(site: Site) -> str:
    return f"{PurePosixPath(site.prefix).parent}/things"


def train(*options: str) -> str:
    """A command that trains the stand-in's baseline on things, for a short while; `options` win."""
    given = {
        "NUM_GPUS": "1",
        "MODEL.NUM_CLASSES": "3",
        "TRAIN.DATASETS": "('things_train',)",
        "TEST.DATASETS": "('things_val',)",
        "TEST.FORCE_JSON_DATASET_EVAL": "True",
        "TRAIN.SCALES": "(96,)",
        "TEST.SCALE": "96",
        "SOLVER.WARM_UP_ITERS": "0",
        "SOLVER.MAX_ITER": "12",
        "SOLVER.STEPS": "[0]",
        "OUTPUT_DIR": "$THINGS/out",
    } | dict(zip(options[::2], options[1::2], strict=True))
    words = [shlex.quote(word) if "$" not in word else word for pair in given.items() for word in pair]
    return f"$DETECTRON_TOOLS/train_net.py --cfg {BASELINE} {' '.join(words)}"


def test_every_cpu_operator_gives_its_formulas_numbers_and_slopes(first_run: FirstRun) -> None:
    said = run_program(first_run.site, ROOT / "tests/py27/programs/operators.py")
    ran = re.search(r"\nRan (\d+) tests in [\d.]+s\n\nOK\n\Z", said)
    assert ran and int(ran[1]) >= 30, said


def test_the_comparison_with_a_gpu_says_where_there_is_none(first_run: FirstRun) -> None:
    said = run_program(first_run.site, ROOT / "bench/operators_gpu.py")
    assert said.endswith(
        "operators_gpu.py: there is no GPU 0 here: Caffe2 sees 0. Nothing was compared.\nexit status 2\n"
    )


def test_own_datasets_are_trained_on_and_evaluated_without_a_gpu_or_a_change_to_the_install(things: Site) -> None:
    on_cpu = {"DETECTRON_DATASETS": "$THINGS/datasets.json", "DETECTRON_DEVICE": "cpu"}
    command = train("NUM_GPUS", "2").replace(" --cfg", " --multi-gpu-testing --cfg")
    status, said = run_tool(things, command, **on_cpu, DETECTRON_LOG_PERIOD="4")
    assert status == 0, said
    generation = things.shell(f"readlink -f {things.prefix}/current").strip()
    # The processes of its test know the datasets because they are started as this one was.
    assert re.findall(r"detection range command: (\S+) --range (\d) (\d) ", said) == [
        (f"{generation}/tools/test_net.py", *ends) for ends in (("0", "4"), ("4", "8"))
    ]
    assert [json.loads(line)["iter"] for line in re.findall(r"^json_stats: (.*)$", said, re.M)] == [0, 4, 8, 11]
    assert "not asked: the CPU is used (DETECTRON_DEVICE)" in said
    assert "copypaste: Dataset: things_val\n" in said
    assert "copypaste: AP,AP50,AP75,APs,APm,APl\n" in said
    weights = "$THINGS/out/train/things_train/generalized_rcnn/model_final.pkl"
    status, said = run_tool(
        things,
        f"$DETECTRON_TOOLS/infer_simple.py --cfg {BASELINE} --wts {weights} --image-ext png --output-dir $THINGS/drawn "
        "$THINGS/val",
        DETECTRON_DEVICE="cpu",
    )
    assert status != 0  # the baseline is for COCO's 81 classes
    assert "does not match weights file shape" in said


@pytest.mark.parametrize(
    ("command", "environment", "words"),
    [
        (
            train("TEST.DATASETS", "('things_vla',)"),
            {},
            "TEST.DATASETS: There is no dataset things_vla. In $THINGS/datasets.json: things_train, things_val. "
            "Of Detectron itself: coco_2014_minival, ",
        ),
        (
            train("TRAIN.DATASETS", "('coco_2014_train',)"),
            {},
            "TRAIN.DATASETS: Dataset coco_2014_train: there is no folder ",
        ),
        (
            train("TEST.FORCE_JSON_DATASET_EVAL", "False"),
            {},
            "TEST.DATASETS: Detectron has no evaluator for a dataset called things_val: set "
            "TEST.FORCE_JSON_DATASET_EVAL to True, or give it a name with coco_ in it.",
        ),
        (
            train(),
            {"DETECTRON_DATASETS": "$THINGS/nowhere.json"},
            "train_net.py: The datasets file $THINGS/nowhere.json cannot be read: No such file or directory.",
        ),
        ("$DETECTRON_TOOLS/test_net.py", {"DETECTRON": "/opt"}, "There is no /opt/tools/test_net.py: DETECTRON names"),
        ("$DETECTRON_TOOLS/test_net.py", {"DETECTRON": "''"}, "DETECTRON is not set. Activate the stack first: . "),
        ("$DETECTRON_TOOLS/test_net.py", {"DETECTRON_DEVICE": "tpu"}, "DETECTRON_DEVICE is 'tpu': it must be cpu or"),
        ("$DETECTRON_TOOLS/test_net.py", {"DETECTRON_LOG_PERIOD": "0"}, "DETECTRON_LOG_PERIOD is '0': it must be a"),
        ("$DETECTRON_TOOLS/detectron_tool.py", {}, "Start train_net.py, test_net.py, infer_simple.py: links to this"),
    ],
)
def test_what_a_run_would_stumble_over_is_said_before_it_starts(
    things: Site, command: str, environment: dict[str, str], words: str
) -> None:
    named = {"DETECTRON_DATASETS": "$THINGS/datasets.json", "DETECTRON_DEVICE": "cpu"}
    status, said = run_tool(things, command, **named | environment)
    assert status == 1
    assert words.replace("$THINGS", folder(things)) in said
    assert "Traceback" not in said


def rehearse(site: Site, name: str, *options: str, changes: dict[str, Any], **environment: str) -> tuple[int, Any, str]:
    """Rehearse the stand-in's baseline for two GPUs, with changes by dotted names: (status, verdict.json, output)."""
    config = {
        "MODEL": {"TYPE": "generalized_rcnn", "CONV_BODY": "stand-in", "NUM_CLASSES": 3, "FASTER_RCNN": True},
        "NUM_GPUS": 2,
        "SOLVER": {"BASE_LR": 0.005, "MAX_ITER": 360000, "STEPS": [0, 240000, 320000], "LR_POLICY": "steps_with_decay"},
        "TRAIN": {"DATASETS": "('things_train',)", "IMS_PER_BATCH": 2},
        "TEST": {"DATASETS": "('things_val',)", "FORCE_JSON_DATASET_EVAL": True},
        "OUTPUT_DIR": "/elsewhere",
    }
    for key, value in changes.items():
        section, _, option = key.rpartition(".")
        (config[section] if section else config)[option] = value  # type: ignore[index]
    run = f"{folder(site)}/runs/{name}"
    site.shell(f"mkdir -p {run}\ncat > {run}/config.yaml <<'END'\n{json.dumps(config)}\nEND\n")
    command = f"$DETECTRON_TOOLS/rehearse.py {run} --datasets $THINGS/datasets.json {' '.join(options)}"
    status, said = run_tool(site, command, **environment)
    return status, json.loads(site.shell(f"cat {run}/verdict.json")), said


def statuses(verdict: Any) -> dict[str, str]:
    return {rung["rung"]: rung["status"] for rung in verdict["rungs"]}


def test_a_rehearsal_trains_is_killed_resumes_and_evaluates(things: Site) -> None:
    files = f"cd {folder(things)} && find . -type f -not -path './runs/*' -not -path './out*' | sort"
    before = things.shell(files)
    status, verdict, said = rehearse(things, "good", "--iterations 48", changes={})
    assert status == 0, said
    assert verdict["status"] == "passed"
    unknown = dict.fromkeys(["weights", "schedule"], "not_applicable")
    assert statuses(verdict) == dict.fromkeys(statuses(verdict), "passed") | unknown
    assert verdict["stand_in"].startswith("This is a stand-in for Detectron")
    losses = verdict["figures"]["losses"]
    assert [iteration for iteration, _ in losses] == [0, 8, 16, 24, 32, 32, 40, 47]
    assert losses[-1][1] < losses[0][1]
    assert set(verdict["figures"]["results"]["things_val"]["box"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert ["SOLVER.MAX_ITER", 360000, 48] in verdict["figures"]["changes"]
    reasons = {rung["rung"]: rung["reason"] for rung in verdict["rungs"]}
    assert reasons["dataset"] == "things_train: 8 of 8 images; things_val: 8 of 8 images"
    assert "0.00125 (the configuration's 0.005 for 4 images, scaled to one)" in reasons["finite"]
    assert reasons["resume"] == "from iteration 25, after SIGKILL, to the final model"
    assert re.search(r"^  resumed: iteration 47, loss [\d.]+, rate 0\.00", said, re.M)
    assert "REHEARSAL of " in said and "  falling     passed  from " in said
    assert things.shell(files) == before
    assert things.shell(f"find {folder(things)}/runs -name 'model*.pkl'") == ""


def test_weights_that_are_given_are_loaded_in_the_rehearsal(things: Site) -> None:
    weights = f"{folder(things)}/trained.pkl"
    final = "$THINGS/out-of-weights/train/things_train/generalized_rcnn/model_final.pkl"
    on_cpu = {"DETECTRON_DATASETS": "$THINGS/datasets.json", "DETECTRON_DEVICE": "cpu"}
    only_train = train("OUTPUT_DIR", "$THINGS/out-of-weights").replace(" --cfg", " --skip-test --cfg")
    status, said = run_tool(things, f"{only_train} && mv {final} {weights}", **on_cpu)
    assert status == 0, said
    status, verdict, said = rehearse(things, "weights", "--iterations 6", changes={"TRAIN.WEIGHTS": weights})
    (found,) = [rung for rung in verdict["rungs"] if rung["rung"] == "weights"]
    assert found["status"] == "passed", said
    assert found["reason"] == f"{weights}: 8 of 8 blobs of the network, all of them"


@pytest.mark.parametrize(
    ("changes", "options", "rung", "reason", "remedy"),
    [
        (
            {"MODEL.NUM_CLASSES": 81},
            "",
            "classes",
            "MODEL.NUM_CLASSES is 81, but things_train has 2 categories, and the background is a class as well",
            "set MODEL.NUM_CLASSES to 3",
        ),
        (
            {"TEST.FORCE_JSON_DATASET_EVAL": False},
            "",
            "evaluator",
            "Detectron has no evaluator for a dataset called things_val",
            "set TEST.FORCE_JSON_DATASET_EVAL to True, or give it a name with coco_ in it.",
        ),
        ({"TEST.WEIGHT": ""}, "", "config", "Detectron refuses ", "mend the option it names"),
        ({"TRAIN.DATASETS": "('things',)"}, "", "dataset", "There is no dataset things. ", "mend the dataset, or the "),
        ({}, "--rate 1e6", "finite", "Loss is NaN, at the rate of 1e+06", "lower it"),
        (
            {"TRAIN.WEIGHTS": "/nowhere/R-50.pkl"},
            "--iterations 6",
            "weights",
            "random weights: not found at /nowhere/R-50.pkl (TRAIN.WEIGHTS)",
            "put the file there",
        ),
    ],
)
def test_what_would_fail_in_days_fails_in_the_rehearsal(
    things: Site, changes: dict[str, Any], options: str, rung: str, reason: str, remedy: str
) -> None:
    status, verdict, said = rehearse(things, "bad", options, changes=changes)
    assert (status, verdict["status"]) == (1, "failed"), said
    (failed,) = [one for one in verdict["rungs"] if one["status"] == "failed"]
    assert failed["rung"] == rung
    assert reason in failed["reason"]
    assert remedy in failed["remedy"]
    assert f"{rung}: FAILED. {failed['reason']}\n  remedy: {failed['remedy']}\n" in said
    assert "Traceback" not in said
