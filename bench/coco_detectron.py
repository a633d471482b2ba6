#!/usr/bin/env python3
"""Show what the real Detectron does at each thing that role coco finds, to judge the findings' severities by.

    .venv/bin/python bench/coco_detectron.py ~/detectron/cuda90_wheel/current

Wants a stack on this machine with Facebook's Detectron, from its own repository (not the stand-in), installed by
site.yml; changes nothing in it. Makes the datasets of tests/unit/test_coco_findings.py in a temporary folder, each with
one thing that is wrong, and has Detectron load it, prepare it for training with flipped images, read its images, make
masks, and evaluate detections that are the annotations themselves, whose average precision should be 1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/unit"), str(ROOT / "tests/fleet")]

import run_module  # noqa: E402, F401  makes module_utils importable
import tiny_coco  # noqa: E402
from test_coco_findings import BY_ID, CASES, Dataset  # noqa: E402

PROGRAM = ROOT / "bench/py27/coco_detectron.py"


def make(folder: Path) -> list[dict[str, Any]]:
    """A sound dataset, and one for each case."""
    cases: list[dict[str, Any]] = []
    for number, (check, change, _) in enumerate([("(sound)", lambda dataset: None, ""), *CASES]):
        made = tiny_coco.make(folder / f"{number:03}", images=4, categories=2)
        file = Path(made["annotation_file"])
        dataset = Dataset(
            file.parents[1], "coco_tiny", Path(made["image_directory"]), file, json.loads(file.read_text())
        )
        change(dataset)
        found = dataset.findings().get(check, {})
        entry = {"image_directory": str(dataset.images), "annotation_file": str(file), "image_prefix": dataset.prefix}
        cases.append({"check": check, "what": found.get("what", ""), "name": dataset.name, "entry": entry})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generation", type=Path, help="folder of a generation, such as <prefix>/current")
    generation = parser.parse_args().generation
    with tempfile.TemporaryDirectory() as folder:
        cases = make(Path(folder))
        (Path(folder) / "cases.json").write_text(json.dumps(cases))
        done = 0
        while done < len(cases):
            command = shlex.join([str(PROGRAM), f"{folder}/cases.json", str(done)])
            run = subprocess.run(
                [
                    "/bin/sh",
                    "-c",
                    f". {shlex.quote(str(generation))}/activate.sh && exec python {command} 2> {folder}/said",
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number, steps in map(json.loads, run.stdout.splitlines()):
                show(cases[number], steps)
                done = number + 1
            if run.returncode < 0:
                show(cases[done], [f"ended by {signal.Signals(-run.returncode).name}"])
                done += 1
            elif run.returncode:
                sys.exit(Path(folder, "said").read_text())


def show(case: dict[str, Any], steps: list[str]) -> None:
    check = BY_ID.get(case["check"])
    judged = f"{check.severity}{' for ' + check.breaks if check.breaks else ''}" if check else "-"
    print(f"{case['check']} ({judged}) {case['what']}", *steps, sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
