"""Experiments by the playbooks, with the stand-in for Detectron on the real Caffe2, without a GPU.

The tests tell one story, in order.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.integration.site_run import Site

FOR_EVER = 10**6  # iterations
SMALL = {
    "TRAIN.SCALES": "(96,)",
    "TEST.SCALE": 96,
    "TRAIN.SNAPSHOT_ITERS": 20,
    "SOLVER.WARM_UP_ITERS": 0,
    "SOLVER.STEPS": [0],
}


class Lab:
    """A server with two tiny datasets, and experiments on it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        folder = f"{PurePosixPath(site.prefix).parent}/things"
        self.datasets = json.loads(site.shell(f"cat {folder}/datasets.json"))
        known = json.dumps({"datasets": self.datasets, "reports": {"things_train": {"classes": 3}}})
        site.shell(f"cat > {site.prefix}/checks/{site.server.name}/datasets.json <<'FILE'\n{known}\nFILE")

    def play(self, playbook: str, *arguments: str, fails: bool = False, **experiments: dict[str, Any]) -> str:
        """What a playbook says, in one line."""
        given = json.dumps({"train_experiments": experiments})
        done = self.site.play(f"playbooks/{playbook}", "--extra-vars", given, *arguments)
        assert bool(done.returncode) == fails, done.stdout
        return " ".join(done.stdout.split())

    def file(self, path: str) -> str:
        return self.site.shell(f"cat {self.site.prefix}/runs/{path}")


def experiment(**options: Any) -> dict[str, Any]:
    """An experiment of seconds."""
    return {
        "config": "e2e_mask_rcnn_R-50-FPN_1x",
        "train": ["things_train"],
        "test": ["things_val"],
        "weights": "random",
        "device": "cpu",
        "options": {**SMALL, "SOLVER.MAX_ITER": FOR_EVER, **options},
    }


@pytest.fixture(scope="module")
def lab(things: Site) -> Lab:
    return Lab(things)


def test_check_mode_says_what_would_be_made_of_the_config_and_starts_nothing(lab: Lab) -> None:
    said = lab.play("train.yml", "--check", long=experiment())
    assert "NUM_GPUS: 8 -> 1" in said
    assert "MODEL.NUM_CLASSES: 81 -> 3" in said
    assert "changed=1" in said
    assert lab.site.shell(f"ls {lab.site.prefix}/runs 2>/dev/null || echo none") == "none\n"


def test_without_a_gpu_a_training_is_refused_and_the_rehearsal_is_named(lab: Lab) -> None:
    said = lab.play("train.yml", fails=True, long={**experiment(), "device": "gpu"})
    assert "no GPU of this server has been seen to work" in said
    assert "-e train_rehearsal=true" in said


def test_a_rehearsal_ends_with_its_verdict_and_fails_the_run_where_something_failed(lab: Lab) -> None:
    rehearse = "--extra-vars=train_rehearsal=true"
    said = lab.play("train.yml", rehearse, good={**experiment(), "options": {}, "gpus": 2})
    assert "good.rehearsal: passed, on " in said
    assert "schedule passed a rate of 0.005 for 2 GPUs, 360000 iterations: scaled, as it was when the config" in said
    assert "falling passed from " in said
    said = lab.play("train.yml", rehearse, fails=True, good={**experiment(), "options": {"MODEL.NUM_CLASSES": 81}})
    assert "good.rehearsal: failed, on " in said
    assert "classes FAILED MODEL.NUM_CLASSES is 81, but things_train has 2 categories" in said
    assert "Remedy: set MODEL.NUM_CLASSES to 3" in said
    lab.site.shell(f"rm -r {lab.site.prefix}/runs/good.rehearsal")


def test_a_training_goes_on_after_the_controller_has_ended(lab: Lab) -> None:
    said = lab.play("train.yml", long=experiment())
    assert re.search(r"\[server\d+\] long: iteration \d+ of 1000000", said)
    assert json.loads(lab.file("long/experiment.json"))["schedule"]["SOLVER.BASE_LR"] == 0.0025


def test_its_status_is_told_and_a_second_start_is_refused_naming_the_first(lab: Lab) -> None:
    said = lab.play("train_status.yml")
    assert re.search(r"long: running, on \S+, since [\d: -]+, iteration \d+ of 1000000 .* time left", said)
    said = lab.play("train.yml", fails=True, long=experiment())
    assert re.search(r"Experiment long is running already: on \S+, since 20\d\d-", said)


def test_stopping_leaves_a_checkpoint(lab: Lab) -> None:
    lab.site.shell(f"""for wait in $(seq 300); do
      ls {lab.site.prefix}/runs/long/train/*/*/model_iter*.pkl >/dev/null 2>&1 && exit; sleep 0.2
    done; exit 1""")
    said = lab.play("train_stop.yml", "--extra-vars=train_only=long")
    assert re.search(r"long: stopped, .*its last checkpoint is that of iteration \d+", said)
    assert "changed=1" in said
    assert "changed=0" in lab.play("train_stop.yml", "--extra-vars=train_only=long")


def test_a_resume_with_another_schedule_is_refused_and_with_its_own_goes_on(lab: Lab) -> None:
    said = lab.play("train.yml", fails=True, long=experiment())
    assert "Experiment long was started before, stopped, and has left a checkpoint of iteration" in said
    resume = "--extra-vars=train_resume=true"
    said = lab.play("train.yml", resume, fails=True, long={**experiment(), "gpus": 2})
    assert "NUM_GPUS was 1 where the checkpoint was trained, and is 2" in said
    lab.site.shell(f"""cd {lab.site.prefix}/runs/long/train/*/*/
      head -c -1 $(ls model_iter*.pkl | head -n 1) >model_iter900000.pkl""")  # a run that was ended while it wrote
    said = lab.play("train.yml", resume, long=experiment())
    assert re.search(r"long: cut off when the run before ended, and renamed .* \S+/model_iter900000.pkl", said), said
    assert re.search(r"at start iter (?!0\b)\d{1,5}\n", lab.file("long/log.txt"))
    said = lab.play("train_stop.yml", "--extra-vars=train_only=long")
    assert "long: stopped, " in said


def test_a_divergence_is_told_with_its_log_line_and_a_remedy(lab: Lab) -> None:
    wild = {**experiment(**{"SOLVER.BASE_LR": 1e6}), "unscaled": True}
    said = lab.play("train.yml", "--extra-vars=train_follow=true", fails=True, wild=wild)
    assert "wild: failed" in said
    assert re.search(r"FATAL The loss is not a number any more Log log.txt:\d+: .*(nan|NaN)", said)
    assert "Scale the schedule" in said


def test_an_unscaled_schedule_is_refused_unless_told_so_by_name(lab: Lab) -> None:
    said = lab.play("train.yml", fails=True, wild=experiment(**{"SOLVER.BASE_LR": 0.02}))
    assert "8 times what the linear scaling rule gives" in said


def test_a_training_to_its_end_is_evaluated(lab: Lab) -> None:
    said = lab.play("train.yml", "--extra-vars=train_follow=true", short=experiment(**{"SOLVER.MAX_ITER": 40}))
    assert "failed=0" in said
    said = lab.play("train_status.yml", "--extra-vars=train_only=short")
    assert re.search(r"short: finished, on \S+, the final model is written", said)
    events = [json.loads(line)["event"] for line in lab.file("short/events.jsonl").splitlines()]
    assert events == ["started", "ended"]


def test_all_runs_are_listed_compared_and_written_also_those_whose_folder_is_gone(lab: Lab, tmp_path: Path) -> None:
    said = lab.play("runs.yml", f"--extra-vars=runs_file={tmp_path}/runs.json")
    runs = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert [(run["name"], run["kind"], run["state"]) for run in runs] == [
        ("short", "training", "finished"),
        ("wild", "training", "failed"),
        ("long", "training", "stopped"),  # resumed
        ("long", "training", "stopped"),
        ("good.rehearsal", "rehearsal", "failed"),  # its folder was removed
        ("good.rehearsal", "rehearsal", "finished"),
    ]
    short, wild = runs[:2]
    assert re.search(r"wild train \S+ [\d-]+ [\d:]+ \S+ failed \S+ \S+ (- )?loss_nan", said)
    assert wild["findings"][0]["id"] == "loss_nan"
    assert short["results"]["things_val"]["box"].keys() >= {"AP", "AP50"}
    assert {"caffe2", "detectron"} <= short["installs"].keys()
    assert re.fullmatch(r".+-[0-9a-f]{12}", short["installs"]["detectron"])
    assert (short["gpus"], short["driver"], short["weights"]) == ([], "", {"path": ""})
    assert "MAX_ITER: 40" in short["config_text"]
    assert [run["verdict"] for run in runs[-2:]] == [
        {"status": "failed", "failed": ["classes"]},
        {"status": "passed", "failed": []},
    ]
    said = lab.play("runs.yml", "--extra-vars=runs_compare=short,wild", "--extra-vars=runs_only=short")
    assert re.search(r"SOLVER.BASE_LR 0.0025 1000000.0 ", said)
    assert re.search(r"SOLVER.MAX_ITER 40 1000000 ", said)
    assert re.search(r"Result state finished failed note - loss_nan", said)
    said = lab.play("runs.yml", "--extra-vars=runs_only=shirt", fails=True)
    assert "There is no run shirt. Known are: short, wild, long, good.rehearsal." in said


def test_the_page_about_the_fleet_shows_them_all_with_curves_results_and_diagnosis(lab: Lab, tmp_path: Path) -> None:
    said = lab.play("report.yml", f"--extra-vars=report_file={tmp_path}/index.html")
    assert re.search(r"index.html is written: \d+ servers?, 5 runs \(2 finished, 2 failed, 1 stopped\)", said), said
    page = (tmp_path / "index.html").read_text()
    for words in (
        "good.rehearsal",
        "folder gone",
        "The loss is not a number any more",
        "SOLVER.MAX_ITER",
        "things_val",
    ):
        assert words in page, words
    known = json.loads((tmp_path / f"state/{lab.site.server.name}.json").read_text())
    assert [point[0] for point in known["runs"]["short"]["series"]][:2] == [0, 20]
    assert known["server"]["ladder"]["rungs"][0]["status"] == "passed"
    assert {"caffe2", "detectron"} <= known["server"]["generations"][0]["installs"].keys()
