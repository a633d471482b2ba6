"""cocoapi: built from a clean tree, for the environment's Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.host import Host

MASK_ROUND_TRIP = """
import numpy as np
from pycocotools import mask
drawn = np.zeros((12, 10), np.uint8, order="F")
drawn[3:7, 2:6] = 1
code = mask.encode(drawn)
print(int(mask.area(code)), [int(side) for side in mask.toBbox(code)], bool((mask.decode(code) == drawn).all()))
"""


def test_mask_survives_a_round_trip(install: str, caffe2: str, python: Callable[..., str]) -> None:
    said = python(f"{caffe2}/bin/python", MASK_ROUND_TRIP, PYTHONPATH=f"{install}/PythonAPI")
    assert said == str((16, [2, 3, 4, 4], True))


def test_annotations_can_be_read_without_a_display(install: str, caffe2: str, python: Callable[..., str]) -> None:
    read = "from pycocotools.coco import COCO; print(len(COCO().anns))"
    assert python(f"{caffe2}/bin/python", read, PYTHONPATH=f"{install}/PythonAPI", MPLBACKEND="Agg") == "0"


def test_extension_is_of_the_right_python(host: Host, install: str) -> None:
    extension = f"{install}/PythonAPI/pycocotools/_mask.so"
    assert host.check_output(f"head -c 4 {extension} | od -An -tx1").split() == ["7f", "45", "4c", "46"]
    assert host.run(f"grep -q init_mask {extension}").rc == 0, "an extension of Python 2 has this function"
    assert host.run(f"grep -q PyFPE_jbuf {extension}").rc == 1, "an extension of a Python with fpectl wants this symbol"


def test_tree_holds_no_build_and_no_repository(host: Host, install: str) -> None:
    assert host.check_output(f"find {install} -name build -o -name .git -o -name '*.egg-info' -o -name '*.o'") == ""


def test_receipt_names_the_commit(receipt: dict[str, Any]) -> None:
    assert len(receipt["inputs"]["commit"]) == 40
    assert receipt["requires"] == ["caffe2"]
