"""detectron: built from a clean tree, next to the operators of the stack's Caffe2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

# Of three boxes the second overlaps the first by 100 / 142 and goes; the third overlaps none.
SUPPRESSION = """
import numpy as np
from detectron.utils import cython_bbox, cython_nms
boxes = np.array([[0, 0, 10, 10, .9], [1, 1, 11, 11, .8], [20, 20, 30, 30, .7]], np.float32)
overlap = cython_bbox.bbox_overlaps(boxes[:1, :4].copy(), boxes[1:, :4].copy())
print(list(cython_nms.nms(boxes, np.float32(.5))), ['%.4f' % one for one in overlap[0]])
"""

OPERATORS = """
from caffe2.python import workspace
before = set(workspace.RegisteredOperators())
from detectron.utils import c2, env
c2.import_detectron_ops()
print(len(before), len(workspace.RegisteredOperators()))
print("SpatialNarrowAs" in set(workspace.RegisteredOperators()) - before)
print(env.get_detectron_ops_lib())
"""


@pytest.fixture
def detectron(install: str, caffe2: str, cocoapi: str, python: Callable[..., str]) -> Callable[[str], list[str]]:
    """Run a program that imports Detectron; returns the lines that it prints."""
    paths = f"{cocoapi}/PythonAPI:{install}"

    def run(program: str) -> list[str]:
        return python(f"{caffe2}/bin/python", program, PYTHONPATH=paths, MPLBACKEND="Agg").splitlines()

    return run


def test_compiled_functions_give_the_right_numbers(detectron: Callable[[str], list[str]]) -> None:
    assert detectron(SUPPRESSION)[-1] == str(([0, 2], ["0.7042", "0.0000"]))


def test_operators_come_from_the_stacks_own_caffe2(detectron: Callable[[str], list[str]], caffe2: str) -> None:
    lines = detectron(OPERATORS)
    assert "(777, 801)" in lines
    assert "True" in lines
    assert lines[-1].startswith(f"{caffe2}/lib/")


def test_extensions_are_compiled_in_place(host: Host, install: str) -> None:
    found = host.check_output(f"cd {install}/detectron/utils && echo cython_*.so").split()
    assert found == ["cython_bbox.so", "cython_nms.so"]
    assert host.check_output(f"find {install} -name build -o -name .git -o -name '*.egg-info' -o -name '*.o'") == ""


def test_receipt_names_the_commit(receipt: dict[str, Any]) -> None:
    assert len(receipt["inputs"]["commit"]) == 40
    assert receipt["requires"] == ["caffe2", "cocoapi"]
