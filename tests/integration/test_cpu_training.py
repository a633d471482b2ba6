"""Training without a GPU, on an installed stack with the stand-in for Detectron and the real Caffe2."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import PurePosixPath

import pytest

from tests.integration.site_run import ROOT, FirstRun, Site

PROGRAMS = ROOT / "tests/py27/programs"
BASELINE = "$DETECTRON/configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml"


def run_program(site: Site, name: str) -> str:
    """What a program of tests/py27/programs prints in the activated environment, with the tools on its path."""
    program = (PROGRAMS / name).read_text()
    return site.shell(f""". {site.prefix}/current/activate.sh
PYTHONPATH=$DETECTRON_GENERATION/tools:$PYTHONPATH python - <<'PROGRAM' 2>&1 || :
{program}
PROGRAM""")


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
    said = run_program(first_run.site, "operators.py")
    ran = re.search(r"\nRan (\d+) tests in [\d.]+s\n\nOK\n\Z", said)
    assert ran and int(ran[1]) >= 30, said


def test_own_datasets_are_trained_on_and_evaluated_without_a_gpu_or_a_change_to_the_install(things: Site) -> None:
    on_cpu = {"DETECTRON_DATASETS": "$THINGS/datasets.json", "DETECTRON_DEVICE": "cpu"}
    status, said = run_tool(things, train(), **on_cpu, DETECTRON_LOG_PERIOD="4")
    assert status == 0, said
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
            "train_net.py: The datasets file $THINGS/nowhere.json cannot be read: No such file or directory. "
            "DETECTRON_DATASETS names it.",
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
