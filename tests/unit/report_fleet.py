"""Writes prefixes as servers have them that train for months: installs, ladders, runs with logs of Detectron's form.

Nothing is installed or run; what reads them is the real code of modules report_info and report_page.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils import report_state
from run_module import run_module

from tests.signatures import catalogue

ROLES = {
    "anaconda2": "4.3.16-1f0c9e3ab210",
    "caffe2": "1.0.1-2382f10f4596",
    "cocoapi": "2.0.2-9b1e6f0c77aa",
    "detectron": "82ea64a38627-bfd9c4240b23",
    "nvidia_libs": "7.6.5-0a8ce2dd1b9e",
}
RUNGS = ("files", "linkage", "import", "numerics", "predicted", "operator", "cudnn_cublas", "multi_gpu")
BEGUN = "INFO train_net.py:  95: Called with args:\nINFO train_net.py: 103: 'MAX_ITER': {last}\n"


def ladder(prefix: Path, server: str, failed: str = "", gpus: bool = True) -> None:
    """A check ladder as it is recorded."""
    rungs = []
    for place, name in enumerate(RUNGS):
        status = "failed" if name == failed else "passed" if gpus or place < 4 else "not_applicable"
        reason = {"failed": f"{name} of GPU 0: CUBLAS_STATUS_EXECUTION_FAILED", "passed": ""}
        check = {"name": f"{name}_check", "status": status, "reason": reason.get(status, ""), "remedy": ""}
        if status == "failed":
            check["remedy"] = "use a GPU of compute capability 3.5 to 7.x, or a stack for a newer CUDA"
        why = reason.get(status, "no GPU: no /dev/nvidiactl and no libcuda.so.1")
        rungs.append({"rung": name, "status": status, "reason": why, "checks": [check]})
    write(prefix / "checks" / server / "ladder.json", {"rungs": rungs})


def generations(prefix: Path, count: int = 2) -> None:
    """Generations, the last of which is current."""
    for role, install in ROLES.items():
        (prefix / "opt" / role / install).mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        folder = prefix / "generations" / str(number)
        folder.mkdir(parents=True)
        write(folder / "receipt.json", {"digest": str(number)})
        for role, install in ROLES.items():
            (folder / role).symlink_to(f"../../opt/{role}/{install}")
    (prefix / "current").symlink_to(f"generations/{count}")
    write(prefix / ".stack.json", {"stack": "cuda90_wheel"})


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def statistics(first: int, last: int, rate: float, top: int, seed: int = 0, step: int = 20) -> str:
    """Lines of Detectron's statistics of iterations from `first` to before `last`, whose loss falls."""
    chance = random.Random(f"{seed} {first}")
    lines = []
    for iteration in range(first, last, step):
        part = iteration / max(top, 1)
        drop = 1.0 if part < 0.66 else 0.1 if part < 0.88 else 0.01
        warm = min(1.0, 1 / 3 + iteration / 750)
        loss = (0.35 + seed % 7 / 30 + 2.6 * math.exp(-iteration / (top / 40 + 200)) + 0.28 * math.sqrt(drop)) * (
            1 + 0.05 * chance.gauss(0, 1)
        )
        left = int((top - iteration) * 0.41)
        lines.append(
            f'json_stats: {{"accuracy_cls": "{min(0.99, 0.7 + part / 4):.6f}", "eta": "{_clock(left)}", '
            f'"iter": {iteration}, "loss": "{loss:.6f}", "loss_bbox": "{loss / 5:.6f}", "loss_cls": "{loss / 3:.6f}", '
            f'"loss_mask": "{loss / 3:.6f}", "loss_rpn_bbox_fpn2": "0.012345", "loss_rpn_cls_fpn2": "0.023456", '
            f'"lr": "{rate * drop * warm:.6f}", "mb_qsize": 64, "mem": 6144, "time": "0.410000"}}\n'
        )
    return "".join(lines)


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} days, {clock}" if days > 1 else f"1 day, {clock}" if days else clock


def tables(seed: int) -> str:
    """What Detectron prints after an evaluation."""
    lines = ["Dataset: coco_2014_minival"]
    for task, best in (("box", 0.377), ("mask", 0.339)):
        ap = best + seed % 9 / 1000
        values = (ap, ap * 1.55, ap * 1.07, ap * 0.55, ap * 1.1, ap * 1.3)
        lines += [f"Task: {task}", "AP,AP50,AP75,APs,APm,APl", ",".join(f"{value:.4f}" for value in values)]
    return "".join(f"INFO task_evaluation.py: 190: copypaste: {line}\n" for line in lines)


def run(prefix: Path, name: str, state: str = "finished", seed: int = 0, top: int = 90000, **more: Any) -> Path:
    """A run: `state` finished, failed (its loss is not a number any more), stopped, died, or running (which nobody
    does: `running` is what the page is to be told). Returns its folder."""
    folder = prefix / "runs" / name
    gpus = (1, 2, 4, 8)[seed % 4]
    rate = 0.0025 * gpus
    at = {"finished": top, "failed": int(top * 0.07), "running": int(top * (0.3 + seed % 5 / 10))}.get(state, top // 2)
    at -= at % 20
    facts = {
        "name": name,
        "run": f"{seed:016x}",
        "kind": "training",
        "config": f"/home/alice/detectron/configs/12_2017_baselines/e2e_mask_rcnn_R-{50 + 51 * (seed % 2)}-FPN_1x.yaml",
        "differences": [
            f"NUM_GPUS: 8 -> {gpus}",
            f"SOLVER.BASE_LR: 0.02 -> {rate:g}",
            f"SOLVER.MAX_ITER: 90000 -> {top}",
            *([f"TRAIN.SCALES: [800] -> [{600 + seed % 3 * 40}]"] if seed % 3 else []),
        ],
        "schedule": {"NUM_GPUS": gpus, "TRAIN.IMS_PER_BATCH": 2, "SOLVER.BASE_LR": rate, "SOLVER.MAX_ITER": top},
        "datasets": {"coco_2014_train": "5f1c0a9be2d3", "coco_2014_minival": "77aa01c9d4e1"},
        "device": "gpu",
        "stack": "cuda90_wheel",
        "generation": f"{prefix}/generations/2",
        "detectron": {"path": f"{prefix}/opt/detectron/{ROLES['detectron']}", "commit": "e8ebaf7ce2d52c88199537acbd70"},
        "gpu_ids": list(range(gpus)),
        "server": prefix.name,
        "host": prefix.name,
        "since": f"2026-11-{1 + seed % 24:02} {seed % 24:02}:{seed * 7 % 60:02}:00",
        **more,
    }
    write(folder / "experiment.json", facts)
    log = BEGUN.format(last=top) + statistics(0, at, rate, top, seed)
    if state == "failed":
        log += f'json_stats: {{"iter": {at}, "loss": NaN, "lr": "{rate:.6f}", "time": "0.41", "eta": "1:00:00"}}\n'
        log += "CRITICAL train.py:  98: Loss is NaN, exiting...\nException: Loss is NaN\n"
    if state == "finished":
        log += "INFO net.py: 142: Saving parameters and momentum to /tmp/train/model_final.pkl\n" + tables(seed)
        write(folder / "train/coco_2014_train/generalized_rcnn/model_final.pkl", "u.")
    write(folder / "log.txt", log)
    if state in ("finished", "failed", "stopped"):
        ended = {"run": facts["run"], "status": int(state == "failed"), "signal": None, "stopped": state == "stopped"}
        write(folder / "exit.json", {**ended, "ended": 1764000000})
    return folder


def inference(prefix: Path, name: str, pictures: Iterable[tuple[str, bytes]], seed: int = 0) -> Path:
    """A run of inference with small pictures (name, bytes of a JPEG file)."""
    folder = prefix / "runs" / name
    facts = {"name": name, "run": f"{seed:016x}", "kind": "inference", "host": prefix.name, "device": "gpu"}
    write(folder / "experiment.json", {**facts, "since": "2026-11-24 09:12:00", "stack": "cuda90_wheel"})
    images = []
    for place, (image, data) in enumerate(pictures):
        small = f"{image}.small.jpg"
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / os.path.basename(small)).write_bytes(data)
        images.append({"image": image, "seconds": 0.31 + place / 100, "detections": 9 - place, "small": small})
    write(folder / "results.json", {"images": images, "threshold": 0.7})
    write(folder / "log.txt", "INFO infer_simple.py: 147: done\n")
    write(folder / "exit.json", {"run": facts["run"], "status": 0, "ended": 1764000000})
    return folder


class Controller:
    """What the action plugin report_info does, for a prefix of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: list[int] = []  # bytes of each question and answer
        self.points: list[int] = []  # bytes of the curves in each answer
        signatures = [
            {key: value for key, value in signature.items() if key not in ("log", "not", "given", "not_given")}
            for signature in catalogue()
        ]
        self.signatures = signatures

    def look(self, host: str, prefix: Path, now: float, **changes: Any) -> dict[str, Any]:
        """Ask; `changes` are made to the answer's runs: {name: {key: value}}. Returns what is known."""
        known = {**report_state.load(self.folder, host), "stack": "cuda90_wheel"}
        question = report_state.question(known)
        told = run_module("report_info", prefix=str(prefix), server=host, signatures=self.signatures, **question)
        assert not told.get("failed"), told["msg"]
        self.sent.append(len(json.dumps(question)) + len(json.dumps(told)))
        self.points.append(sum(len(json.dumps(run["points"])) for run in told["runs"].values()))
        for name, change in changes.items():
            told["runs"][name].update(change)
        state: dict[str, Any] = report_state.answered(known, told, now)
        report_state.save(self.folder, state)
        return state
