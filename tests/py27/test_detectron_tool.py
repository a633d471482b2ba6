"""The datasets file of the front ends of Detectron's tools: what is taken, and what is said of a wrong one."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path
from types import ModuleType

import pytest
from py27_sources import CODE

ENTRY = {"image_directory": "/data/images", "annotation_file": "/data/a.json"}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detectron_tool", CODE / "detectron_tool.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "document",
    [{"things": ENTRY}, {"things": ENTRY | {"image_prefix": ""}}, {"datasets": {"things": ENTRY}, "reports": {}, "path": {}}],
)
def test_a_runs_datasets_and_those_found_on_a_server_are_taken(
    tool: ModuleType, tmp_path: Path, document: dict[str, object]
) -> None:
    (tmp_path / "d.json").write_text(json.dumps(document))
    assert tool.read_datasets(str(tmp_path / "d.json"))["things"]["image_directory"] == "/data/images"


def test_without_a_file_named_those_found_on_this_server_are_taken(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "__file__", str(tmp_path / "generations/1/tools/detectron_tool.py"))
    monkeypatch.delenv("DETECTRON_DATASETS", raising=False)
    found = tmp_path / "checks" / socket.gethostname() / "datasets.json"
    assert tool.datasets_file() == ""
    found.parent.mkdir(parents=True)
    found.write_text("{}")
    assert tool.datasets_file() == str(found)
    for named in ("", "/mine.json"):
        monkeypatch.setenv("DETECTRON_DATASETS", named)
        assert tool.datasets_file() == named


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory."),
        ("{", "is not JSON: "),
        ("[]", "holds no JSON object of datasets by name."),
        ('{"things": []}', "Dataset things of "),
        ('{"things": {"image_directory": "/x"}}', " lacks annotation_file. A dataset has image_directory and "),
        (json.dumps({"things": ENTRY | {"annotations": "x"}}), " has an unknown annotations. A dataset has "),
    ],
)
def test_a_wrong_datasets_file_is_refused_in_one_sentence(
    tool: ModuleType, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "d.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(tool.ToolError) as refused:
        tool.read_datasets(str(path))
    assert str(path) in str(refused.value)
    assert words in str(refused.value)


class Options(dict[str, object]):
    """As Detectron's AttrDict."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("name", "model", "test", "words"),
    [
        ("coco_2014_minival", {}, {}, ""),
        ("my_coco_val", {}, {}, ""),
        ("voc_2007_val", {}, {}, ""),
        ("things", {}, {"FORCE_JSON_DATASET_EVAL": True}, ""),
        ("things", {"RPN_ONLY": True}, {}, ""),
        ("things", {}, {}, "no evaluator for a dataset called things: set TEST.FORCE_JSON_DATASET_EVAL to True"),
        ("my_voc_val", {}, {}, "no evaluator for a dataset called my_voc_val"),
        ("keypoints_coco_people", {"KEYPOINTS_ON": True}, {}, ""),
        ("coco_people", {"KEYPOINTS_ON": True}, {}, "a dataset whose name begins with keypoints_coco_"),
    ],
)
def test_a_dataset_that_detectron_cannot_evaluate_is_known_by_its_name(
    tool: ModuleType, name: str, model: dict[str, object], test: dict[str, object], words: str
) -> None:
    said = tool.missing_evaluator(name, Options(MODEL=Options(model), TEST=Options(test)))
    assert words in said if words else said == ""
