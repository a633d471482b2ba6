"""What infer_simple.py sees is kept as it goes, whatever it is told by the environment."""

from __future__ import annotations

import glob
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from py27_sources import CODE


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detectron_tool", CODE / "detectron_tool.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Picture(SimpleNamespace):
    """As OpenCV's images: rows, columns, colours."""


class Figure:
    def savefig(self, path: str, dpi: int = 100) -> None:
        Path(path).write_text(f"{Path(path).suffix} at {dpi}")


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the tool imports, so small that it can be looked at."""
    made = SimpleNamespace(drawn=[], figure=type("Figure", (Figure,), {}))
    cv2: Any = ModuleType("cv2")
    cv2.INTER_AREA, cv2.IMWRITE_JPEG_QUALITY = 3, 1
    cv2.imread = lambda path: None if "damaged" in path else Picture(shape=(100, 960, 3))
    cv2.resize = lambda _image, size, interpolation: size
    cv2.imwrite = lambda path, size, _options: Path(path).write_text(str(size))
    engine: Any = ModuleType("detectron.core.test_engine")
    engine.im_detect_all = lambda boxes: boxes
    vis: Any = ModuleType("detectron.utils.vis")
    vis.vis_one_image = lambda *_words, **named: made.drawn.append(named)
    dummies: Any = ModuleType("detectron.datasets.dummy_datasets")
    collections: Any = ModuleType("detectron.utils.collections")
    collections.AttrDict = SimpleNamespace
    figure: Any = ModuleType("matplotlib.figure")
    figure.Figure = made.figure
    parts = {"core": {"test_engine": engine}, "utils": {"vis": vis, "collections": collections}}
    parts["datasets"] = {"dummy_datasets": dummies}
    for name in ("glob", "iglob"):  # put back afterwards
        monkeypatch.setattr(glob, name, getattr(glob, name))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", figure)
    monkeypatch.setitem(sys.modules, "detectron", ModuleType("detectron"))
    for folder, modules in parts.items():
        package: Any = ModuleType(f"detectron.{folder}")
        monkeypatch.setitem(sys.modules, package.__name__, package)
        for name, module in modules.items():
            setattr(package, name, module)
            monkeypatch.setitem(sys.modules, module.__name__, module)
    made.cv2, made.engine, made.vis, made.dummies = cv2, engine, vis, dummies
    return made


BOXES = [[], [[0, 0, 1, 1, 0.9], [0, 0, 1, 1, 0.69]], [[0, 0, 1, 1, 0.7]]]


def test_each_image_has_its_time_its_detections_and_its_pictures(
    tool: ModuleType, libraries: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"image00001.jpg": "Zoë.jpg"}))
    results = tool.Results(str(tmp_path), 0.7, 2)
    tool.keep_results(results, "/run/images")
    # As the tools do it: Detectron's returns boxes, masks and keypoints.
    libraries.cv2.imread("/run/images/image00001.jpg")
    assert libraries.engine.im_detect_all((BOXES, None, None)) == (BOXES, None, None)
    libraries.figure().savefig(str(tmp_path / "image00001.jpg.pdf"), dpi=200)
    libraries.cv2.imread("/run/images/b.jpg")
    libraries.engine.im_detect_all([[], [[0, 0, 1, 1, 0.1]]])
    results.write()
    kept = json.loads((tmp_path / "results.json").read_text())
    assert (kept["threshold"], kept["total"]) == (0.7, 2)
    first, second = kept["images"]
    assert first.pop("seconds") >= 0
    assert first == {
        "image": "Zoë.jpg",
        "detections": 2,
        "pictures": ["image00001.jpg.pdf", "image00001.jpg.png"],
        "small": "image00001.jpg.small.jpg",
    }
    assert (second["image"], second["detections"], second["pictures"]) == ("b.jpg", 0, [])
    assert (tmp_path / "image00001.jpg.pdf").read_text() == ".pdf at 200"
    assert (tmp_path / "image00001.jpg.png").read_text() == ".png at 200"
    assert (tmp_path / "image00001.jpg.small.jpg").read_text() == "(480, 50)"


def test_an_image_that_cannot_be_read_is_left_out_and_kept_by_its_own_name(
    tool: ModuleType, libraries: SimpleNamespace, tmp_path: Path
) -> None:
    results = tool.Results(str(tmp_path), 0.7, 1)
    results.names = {"damaged1.jpg": "my holiday.jpg"}
    folder, other = tmp_path / "images", tmp_path / "other"
    for path in (folder / "damaged1.jpg", folder / "whole.jpg", other / "damaged2.jpg"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    tool.keep_results(results, str(folder))
    for find in (glob.glob, glob.iglob):
        assert list(find(f"{folder}/*.jpg")) == [f"{folder}/whole.jpg"]
        assert list(find(f"{other}/*.jpg")) == [f"{other}/damaged2.jpg"]
    assert results.unreadable == ["my holiday.jpg"] * 2


def test_threshold_and_class_names_are_those_of_the_environment(
    tool: ModuleType, libraries: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(["__background__", "5 $ note"]))
    (tmp_path / "a.jpg").touch()
    monkeypatch.setenv("DETECTRON_THRESHOLD", "0.25")
    monkeypatch.setenv("DETECTRON_CLASSES", str(tmp_path / "classes.json"))
    monkeypatch.setenv("DETECTRON_RESULTS", str(tmp_path))
    results = tool.prepare_inference(["--cfg", "x", str(tmp_path)])
    assert (results.threshold, results.total) == (0.25, 2)
    libraries.vis.vis_one_image("image", thresh=0.7)
    assert libraries.drawn == [{"thresh": 0.25}]
    classes = libraries.dummies.get_coco_dataset().classes
    # Between two $ matplotlib would read a formula, and fail on what is none.
    assert (classes[1], classes[2]) == (r"5 \$ note", "class 2")


def test_by_hand_it_is_detectrons_own_tool_alone(
    tool: ModuleType, libraries: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DETECTRON_THRESHOLD", "DETECTRON_CLASSES", "DETECTRON_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    before = dict(vars(libraries.cv2)), dict(vars(libraries.vis)), dict(vars(libraries.engine))
    assert tool.prepare_inference(["demo"]) is None
    assert (dict(vars(libraries.cv2)), dict(vars(libraries.vis)), dict(vars(libraries.engine))) == before


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DETECTRON_THRESHOLD", "high", "DETECTRON_THRESHOLD is 'high': it must be a number from 0 to 1."),
        ("DETECTRON_CLASSES", "/nowhere", "The file of class names /nowhere cannot be read: "),
        ("DETECTRON_CLASSES", "@[1]", "holds no JSON list of names."),
        ("DETECTRON_CLASSES", "@{", "cannot be read: "),
    ],
)
def test_what_it_cannot_take_from_the_environment_is_one_sentence(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    if value.startswith("@"):
        (tmp_path / "classes.json").write_text(value[1:])
        value = str(tmp_path / "classes.json")
    monkeypatch.delenv("DETECTRON_THRESHOLD", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(tool.ToolError) as refused:
        tool.prepare_inference([])
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("size", "small"), [((960, 540), (480, 270)), ((480, 100), (480, 100)), ((100, 900), (100, 900)), ((5000, 3), (480, 1))]
)
def test_small_pictures_are_at_most_so_wide(tool: ModuleType, size: tuple[int, int], small: tuple[int, int]) -> None:
    assert tool.shrunk(*size) == small
