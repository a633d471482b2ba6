"""nvidia_libs: cuDNN 7 and NCCL 2 that a program really binds to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host


def test_cudnn_loads_and_tells_its_version(install: str, python: Callable[..., str]) -> None:
    ask = f"import ctypes; print(ctypes.CDLL('{install}/lib64/libcudnn.so.7').cudnnGetVersion())"
    assert python("python3", ask) == "7605"


def test_header_belongs_to_the_library(host: Host, install: str) -> None:
    header = host.file(f"{install}/include/cudnn.h").content_string
    versions = dict(re.findall(r"#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) (\d+)", header))
    assert versions == {"MAJOR": "7", "MINOR": "6", "PATCHLEVEL": "5"}


def test_nccl_tells_its_version(host: Host, install: str) -> None:
    version = "NCCL version [0-9.]*+cuda[0-9.]*"
    found = host.check_output(f"grep --text --only-matching '{version}' {install}/lib64/libnccl.so.2")
    assert found.splitlines()[0] == "NCCL version 2.3.7+cuda9.0"


@pytest.mark.parametrize(("consumer", "library"), [("cudnn.so", "libcudnn.so.7"), ("nccl.so", "libnccl.so.2")])
def test_consumer_binds_to_the_prefix_and_only_by_the_library_path(
    host: Host, install: str, consumer: str, library: str
) -> None:
    ldd = f"ldd {install}/consumer/{consumer}"
    assert f"{library} => not found" in host.check_output(f"env -u LD_LIBRARY_PATH {ldd}")
    assert f"{library} => {install}/lib64/{library} " in host.check_output(f"LD_LIBRARY_PATH={install}/lib64 {ldd}")


@pytest.mark.parametrize(("name", "target"), [("libcudnn.so", "libcudnn.so.7"), ("libnccl.so", "libnccl.so.2")])
def test_linker_finds_the_libraries(host: Host, install: str, name: str, target: str) -> None:
    assert host.check_output(f"readlink {install}/lib64/{name}") == target


def test_receipt_names_the_wheel_and_its_terms(receipt: dict[str, Any]) -> None:
    wheel = receipt["inputs"]["wheel"]
    assert wheel["filename"].startswith("cupy_cuda90-6.7.0-cp27")
    assert len(wheel["sha256"]) == 64
    assert "NVIDIA" in wheel["licence"]
