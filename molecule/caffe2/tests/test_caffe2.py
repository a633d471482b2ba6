"""caffe2: an environment in which Caffe2 computes, and which holds the pinned packages and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

# y = x w' + b, [2, 3] x [4, 3]' + [4], on the CPU, against numpy.
FULLY_CONNECTED = """
import numpy as np
from caffe2.python import core, workspace
random = np.random.RandomState(0)
x, w, b = [random.rand(*shape).astype(np.float32) for shape in ((2, 3), (4, 3), (4,))]
for name, value in (("x", x), ("w", w), ("b", b)):
    workspace.FeedBlob(name, value)
workspace.RunOperatorOnce(core.CreateOperator("FC", ["x", "w", "b"], "y"))
print(abs(workspace.FetchBlob("y") - (x.dot(w.T) + b)).max() < 1e-6)
"""


def test_caffe2_computes(install: str, python: Callable[..., str]) -> None:
    assert python(f"{install}/bin/python", FULLY_CONNECTED).splitlines()[-1] == "True"


def test_packages_are_the_pinned_ones_from_the_environment(install: str, python: Callable[..., str]) -> None:
    ask = """
import json, Cython, cv2, google.protobuf, matplotlib, numpy, scipy, yaml
modules = (Cython, cv2, google.protobuf, matplotlib, numpy, scipy, yaml)
print(json.dumps({module.__name__: (module.__version__, module.__file__) for module in modules}))
"""
    found = json.loads(python(f"{install}/bin/python", ask))
    assert {name: version for name, (version, _) in found.items()} == {
        "Cython": "0.28.2",
        "cv2.cv2": "3.4.3",
        "google.protobuf": "3.5.2.post1",
        "matplotlib": "2.2.2",
        "numpy": "1.14.3",
        "scipy": "1.1.0",
        "yaml": "3.12",
    }
    assert [file for _, file in found.values() if not file.startswith(f"{install}/lib/python2.7/site-packages/")] == []


def test_packages_fit_together(host: Host, install: str) -> None:
    assert "No broken requirements found" in host.check_output(f"env -i {install}/bin/python -m pip check")


def test_opencv_wants_no_library_of_an_x_server(host: Host, install: str) -> None:
    needed = host.check_output(f"env -i ldd {install}/lib/python2.7/site-packages/cv2/cv2.so")
    assert "not found" not in needed
    assert "libX" not in needed


def test_scripts_start_the_environments_own_python(host: Host, install: str) -> None:
    first_line = host.check_output(f"head -n 1 {install}/bin/f2py")
    assert first_line == f"#!{install}/bin/python"
    assert len(first_line) <= 127


def test_operators_are_where_older_detectrons_look(host: Host, install: str) -> None:
    library = host.file(f"{install}/lib/libcaffe2_detectron_ops_gpu.so")
    assert library.is_symlink
    assert host.run(f"test -s {install}/lib/libcaffe2_detectron_ops_gpu.so").rc == 0


def test_receipt_names_each_package_by_its_sum(receipt: dict[str, Any]) -> None:
    packages = {package["project"]: package for package in receipt["inputs"]["packages"]}
    assert packages["torch"]["sha256"] == "6618b915124d22309d6ba7d80cf7539084bc7146f21837a9329a1d9e3a4e647d"
    assert all(len(package["sha256"]) == 64 for package in packages.values())
