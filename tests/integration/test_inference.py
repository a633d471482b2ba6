"""Inference and evaluation by the playbooks, with the stand-in for Detectron on the real Caffe2, without a GPU.

The tests tell one story, in order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.integration.site_run import Site
from tests.integration.test_training import SMALL

CLASSES = ["rectangle1", "triangle2"]
MODEL = "runs/seen/train/things_train/generalized_rcnn/model_final.pkl"


class Studio:
    """A server with a model that has been trained for a moment, and a folder of images here."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.photos, self.results = site, folder / "photos", folder / "results"
        self.things = f"{PurePosixPath(site.prefix).parent}/things"
        report = {"classes": 3, "class_names": CLASSES, "fingerprint": {"images": 8}}
        reports = {f"things_{name}": report for name in ("train", "val")}
        known = {"datasets": json.loads(site.shell(f"cat {self.things}/datasets.json")), "reports": reports}
        site.shell(f"cat > {site.prefix}/checks/{site.server.name}/datasets.json <<'FILE'\n{json.dumps(known)}\nFILE")
        experiment = {
            "config": "e2e_mask_rcnn_R-50-FPN_1x",
            "train": ["things_train"],
            "test": ["things_val"],
            "weights": "random",
            "device": "cpu",
            "options": {**SMALL, "SOLVER.MAX_ITER": 10},
        }
        self.play("train.yml", train_experiments={"seen": experiment}, train_follow=True)

    def play(self, playbook: str, *arguments: str, fails: bool = False, **given: Any) -> str:
        """What a playbook says, in one line."""
        given = {"infer_device": "cpu", "infer_results": str(self.results), **given}
        done = self.site.play(f"playbooks/{playbook}", "--extra-vars", json.dumps(given), *arguments)
        assert bool(done.returncode) == fails, done.stdout
        return " ".join(done.stdout.split())

    def home(self, run: str) -> Path:
        return self.results / run / self.site.server.name


@pytest.fixture(scope="module")
def studio(things: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(things, tmp_path_factory.mktemp("studio"))
    image = things.shell(f"base64 -w 0 {made.things}/val/val_000001.png")
    made.photos.mkdir()
    (made.photos / "one.PNG").write_bytes(base64.b64decode(image))
    shutil.copy(made.photos / "one.PNG", made.photos / "zwei ü.png")
    (made.photos / "cut.png").write_bytes((made.photos / "one.PNG").read_bytes()[:900])
    (made.photos / "notes.txt").write_text("no image")
    (made.photos / "broken.bmp").write_text("BM, and nothing that a bitmap has")
    yield made
    # Others tell the story of the same server from its beginning.
    things.shell(f"rm -r {things.prefix}/runs {made.things}/zoo {things.prefix}/var/cache/md5")


def test_check_mode_says_what_it_would_do_and_without_a_gpu_the_cpu_is_named(studio: Studio) -> None:
    photos = str(studio.photos)
    said = studio.play("infer.yml", "--check", infer_experiment="seen", infer_images=photos)
    assert "The model is that of seen: its final model" in said
    assert "cut.png is cut short: it does not have its end" in said
    assert "notes.txt is no image that OpenCV reads" in said
    assert "changed=2" in said
    assert "inference" not in studio.site.shell(f"ls {studio.site.prefix}/runs")
    said = studio.play("infer.yml", fails=True, infer_experiment="seen", infer_images=photos, infer_device="gpu")
    assert "no GPU of this server has been seen to work" in said
    assert "-e infer_device=cpu" in said


def test_images_come_home_drawn_and_listed_whatever_they_are_called(studio: Studio) -> None:
    given: dict[str, Any] = {"infer_experiment": "seen", "infer_images": str(studio.photos), "infer_threshold": 0.0}
    said = studio.play("infer.yml", infer_name="trip", **given)
    assert re.search(r"2 images, [\d.]+ s each \(median\), in ", said)
    assert re.search(r"one.PNG +[\d.]+ s 1 detection: one.PNG.pdf, one.PNG.png", said)
    assert "broken.bmp is damaged, or no image that OpenCV knows" in said
    assert re.search(r"zwei ü.png +[\d.]+ s 1 detection: image00003.png.pdf, image00003.png.png", said)
    home = studio.home("trip")
    assert (home / "one.PNG.pdf").read_bytes().startswith(b"%PDF")
    assert (home / "one.PNG.png").read_bytes().startswith(b"\x89PNG")
    assert (home / "image00003.png.small.jpg").read_bytes().startswith(b"\xff\xd8")
    assert {image["image"] for image in json.loads((home / "results.json").read_text())["images"]} == {
        "one.PNG",
        "zwei ü.png",
    }
    said = studio.play("infer.yml", infer_name="trip", infer_start=False, **given)
    assert "changed=0" in said
    studio.play("report.yml", report_file=str(studio.results / "page.html"))
    page = (studio.results / "page.html").read_text()
    assert page.count('src="data:image/jpeg;base64,/9j/') == 2
    assert 'alt="one.PNG, 1 detection"' in page
    # Again: the images are there, and this time nothing is found.
    said = studio.play("infer.yml", infer_name="trip", **{**given, "infer_threshold": 1.0})
    assert "pushed" not in said
    assert "no detection with a score of 1 or more" in said
    assert sorted(path.name for path in home.iterdir()) == ["results.json"]


@pytest.fixture
def zoo(studio: Studio) -> Iterator[str]:
    """The folder of a web server on the server's own loopback, port 8099."""
    folder = f"{studio.things}/zoo"
    begin = (
        f"mkdir -p {folder} && cd {folder} && (python3 -m http.server --bind 127.0.0.1 8099 >/dev/null 2>&1 & echo $!)"
    )
    process = studio.site.shell(begin).strip()
    yield folder
    studio.site.shell(f"kill {process}")


def test_weights_of_an_address_are_used_when_they_have_their_md5_and_only_then(studio: Studio, zoo: str) -> None:
    given: dict[str, Any] = {
        "infer_config": f"{studio.site.prefix}/runs/seen/config.yaml",
        "infer_weights": "http://127.0.0.1:8099/model.pkl",
        "infer_images_on_server": f"{studio.things}/val/val_000001.png",
        "infer_threshold": 0.0,
    }
    wrong = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    studio.site.shell(f"cp {studio.site.prefix}/{MODEL} {zoo}/model.pkl; echo {wrong} > {zoo}/model.pkl.md5sum")
    said = studio.play("infer.yml", fails=True, **given)
    assert f"its bytes do not have the md5 {wrong}. Fetch it and its .md5sum on a machine that can" in said
    assert "Traceback" not in said
    assert "config.inference" not in studio.site.shell(f"ls {studio.site.prefix}/runs")
    studio.site.shell(f"md5sum < {zoo}/model.pkl > {zoo}/model.pkl.md5sum")
    assert "1 image, " in studio.play("infer.yml", **given)
    assert (studio.home("config.inference") / "val_000001.png.png").is_file()


def test_an_evaluation_ends_with_a_table_which_the_run_keeps(studio: Studio) -> None:
    said = studio.play("evaluate.yml", infer_experiment="seen", infer_gpus=2)
    assert re.search(r"things_val ?'? ?- '? ?task AP AP50 AP75 APs APm APl", said), said
    log = studio.site.shell(f"cat {studio.site.prefix}/runs/seen.evaluation/log.txt")
    assert len(re.findall(r"detection range command", log)) == 2
    facts = json.loads(studio.site.shell(f"cat {studio.site.prefix}/runs/seen.evaluation/experiment.json"))
    assert (facts["kind"], list(facts["datasets"])) == ("evaluation", ["things_val"])
    said = studio.play("runs.yml")
    assert "left out" not in said
    assert re.search(r"seen.evaluation eval\w* ", said), said
