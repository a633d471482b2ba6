"""What libraries hold for GPUs, what follows from it for a GPU, and how that stands beside what was measured."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from gpu_code_files import LIBRARY, MACHINE_CODE, OWN, PTX, caffe2_install, elf, fat_binary
from py27_sources import ROOT

OWN_KEY = (("3.5", "5.0", "6.0", "7.0"), ("5.0",))
LIBRARY_KEY = (("3.5", "5.0", "6.0", "6.1", "7.0"), ())
CAFFE2 = {OWN_KEY: 309, LIBRARY_KEY: 532}
OPERATORS = {OWN_KEY: 12}
LOCKED = {"code": ["3.5", "5.0", "6.0", "6.1", "7.0"], "ptx": ["5.0"]}


def gpu(capability: str, index: int = 0) -> dict[str, Any]:
    return {"index": index, "name": "Some GPU", "compute_capability": capability, "driver": "580.1"}


def run(ladder: ModuleType, name: str, stack: Any) -> dict[str, Any]:
    found: dict[str, Any] = ladder.run_check(next(one for one in ladder.CHECKS if one.name == name), stack)
    return found


def rungs(ladder: ModuleType, **statuses: str) -> list[dict[str, Any]]:
    return [{"rung": rung, "status": statuses.get(rung, "not_applicable"), "checks": []} for rung in ladder.RUNGS]


# --- reading ---


def test_modules_are_counted_by_what_they_hold(ladder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(elf(OWN, LIBRARY, OWN, fat_binary()))
    modules = ladder.gpu_modules(str(tmp_path / "x.so"))
    assert modules == {OWN_KEY: 2, LIBRARY_KEY: 1}
    assert ladder.gpu_code_sentence("/a/x.so", modules) == (
        "x.so: machine code for 3.5, 5.0, 6.0, 6.1, 7.0; PTX for 5.0 in 2 of 3 modules"
    )


def test_two_digit_majors_and_unknown_kinds_are_read(ladder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(elf(fat_binary((MACHINE_CODE, 121), (PTX, 100), (64, 90))))
    assert ladder.gpu_modules(str(tmp_path / "x.so")) == {(("12.1",), ("10.0",)): 1}


@pytest.mark.parametrize("content", [elf(OWN, section=b".text"), elf()])
def test_a_library_without_code_for_gpus_holds_none(ladder: ModuleType, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.so").write_bytes(content)
    assert ladder.gpu_modules(str(tmp_path / "x.so")) == {}
    assert ladder.gpu_code_sentence("x.so", {}) == "x.so: machine code for no GPU; no PTX"


def test_a_cut_library_is_an_error_wherever_it_is_cut(ladder: ModuleType, tmp_path: Path) -> None:
    whole = elf(OWN, LIBRARY)
    for length in range(len(whole) - 24):  # the last header's last fields are not needed
        (tmp_path / "x.so").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.so is (cut off|not a 64-bit)"):
            ladder.gpu_modules(str(tmp_path / "x.so"))


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        (OWN[:16], struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 1 << 60), "its section"),
        (struct.pack("<IHH", 0xBA55ED50, 1, 16), struct.pack("<IHH", 0xBA55ED50, 1, 0), "its section"),
        (struct.pack("<HHI", MACHINE_CODE, 257, 72), struct.pack("<HHI", MACHINE_CODE, 257, 0), "its fat binary"),
        (struct.pack("<HHIQ", PTX, 257, 72, 40), struct.pack("<HHIQ", PTX, 257, 72, 1 << 60), "its fat binary"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_an_error(
    ladder: ModuleType, tmp_path: Path, find: bytes, put: bytes, words: str
) -> None:
    whole = elf(OWN)
    assert find in whole
    (tmp_path / "x.so").write_bytes(whole.replace(find, put, 1))
    with pytest.raises(ValueError, match=f"damaged: .* reaches past {words}"):
        ladder.gpu_modules(str(tmp_path / "x.so"))


def test_changed_bytes_never_end_in_a_traceback_or_a_loop(ladder: ModuleType, tmp_path: Path) -> None:
    whole = elf(OWN, LIBRARY)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        (tmp_path / "x.so").write_bytes(changed)
        try:
            ladder.gpu_modules(str(tmp_path / "x.so"))
        except ValueError:
            continue


def test_the_locks_wheel_holds_what_the_lock_says(ladder: ModuleType, tmp_path: Path) -> None:
    wheels = list((ROOT / "mirror" / "sha256").glob("*/torch-1.0.1-*.whl"))
    if not wheels:
        pytest.skip("the mirror has no torch-1.0.1 wheel: ansible-playbook playbooks/mirror.yml fills it")
    libraries = tmp_path / "lib"
    libraries.mkdir()
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in ("libcaffe2_gpu.so", ladder.OPERATOR_LIBRARY):
                with wheel.open(f"torch/lib/{name}") as packed, (libraries / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        stack = ladder.Stack({"caffe2": str(tmp_path)}, expect={"compute_capabilities": LOCKED})
        found = run(ladder, "caffe2_gpu_code", stack)
        assert found["detail"] == (
            "libcaffe2_gpu.so: machine code for 3.5, 3.7, 5.0, 6.0, 6.1, 7.0; PTX for 5.0 in 309 of 841 modules; "
            "libcaffe2_detectron_ops_gpu.so: machine code for 3.5, 5.0, 6.0, 7.0; PTX for 5.0 in 12 of 12 modules; "
            "the lock agrees"
        )
        operators = ladder.gpu_modules(str(libraries / ladder.OPERATOR_LIBRARY))
        assert operators == {OWN_KEY: 12}
    finally:
        shutil.rmtree(libraries)  # 800 MB, which pytest would keep


# --- the lock ---


@pytest.mark.parametrize(
    ("locked", "status"),
    [
        (LOCKED, "passed"),
        ({"code": ["3.5", "5.0", "6.0", "7.0"], "ptx": ["5.0"]}, "passed"),  # 6.0 says as much as 6.0 and 6.1
        ({"code": ["3.5", "5.0", "6.0", "6.1", "7.0", "8.0"], "ptx": ["5.0"]}, "failed"),
        ({"code": ["3.5", "5.0", "6.1", "7.0"], "ptx": ["5.0"]}, "failed"),
        ({"code": ["5.0", "6.0", "6.1", "7.0"], "ptx": ["5.0"]}, "failed"),
        ({"code": LOCKED["code"], "ptx": []}, "failed"),
        ({"code": LOCKED["code"], "ptx": ["7.0"]}, "failed"),
    ],
)
def test_a_lock_that_says_otherwise_fails(
    ladder: ModuleType, tmp_path: Path, locked: dict[str, Any], status: str
) -> None:
    stack = ladder.Stack(
        {"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, expect={"compute_capabilities": locked}
    )
    found = run(ladder, "caffe2_gpu_code", stack)
    assert found["status"] == status
    if status == "failed":
        assert "but the lock says machine code for" in found["reason"]
        assert "requirements.compute_capabilities" in found["remedy"]


def test_a_gpu_counts_only_where_caffe2_and_detectrons_operators_both_have_code(
    ladder: ModuleType, tmp_path: Path
) -> None:
    # As torch 1.4: the cuDNN and cuBLAS inside have code for 3.5, but all that is Caffe2's own begins with 3.7.
    own = fat_binary((MACHINE_CODE, 37), (PTX, 37), (MACHINE_CODE, 70), (MACHINE_CODE, 75))
    inside = fat_binary(*[(MACHINE_CODE, one) for one in (35, 50, 70, 75)])
    install = caffe2_install(tmp_path, own, inside, operators=own, library="libtorch.so")
    for code, status in ((["3.7", "7.0", "7.5"], "passed"), (["3.5", "3.7", "7.0"], "failed"), (["3.7"], "failed")):
        expect = {"compute_capabilities": {"code": code, "ptx": ["3.7"]}}
        found = run(ladder, "caffe2_gpu_code", ladder.Stack({"caffe2": str(install)}, expect=expect))
        assert found["status"] == status, found
    assert "both have machine code for 3.7, 7.0, 7.5 and PTX for 3.7, but the lock says" in found["reason"]


def test_caffe2_is_found_where_each_torch_has_it(ladder: ModuleType, tmp_path: Path) -> None:
    since_12 = caffe2_install(tmp_path / "1.2", OWN, library="libtorch.so")
    before = caffe2_install(tmp_path / "1.0", OWN)
    libraries = before / "lib/python2.7/site-packages/torch/lib"
    (libraries / "libtorch.so").write_bytes(elf())  # there it holds nothing of Caffe2
    found = [ladder.caffe2_library(ladder.Stack({"caffe2": str(install)})) for install in (since_12, before)]
    assert [Path(path).name for path in found] == ["libtorch.so", "libcaffe2_gpu.so"]
    with pytest.raises(ladder.Failed, match=r"neither libcaffe2_gpu\.so nor libtorch\.so is in "):
        ladder.caffe2_library(ladder.Stack({"caffe2": str(tmp_path)}))


# --- predicting ---


@pytest.mark.parametrize(
    ("capability", "operators", "libraries"),
    [
        ("3.0", "", False),
        ("3.2", "", False),
        *[(which, "code", True) for which in ("3.5", "3.7", "5.0", "5.2", "5.3", "6.0", "6.1", "6.2")],
        *[(which, "code", True) for which in ("7.0", "7.2", "7.5")],
        *[(which, "ptx", False) for which in ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")],
    ],
)
def test_prediction_for_every_gpu(ladder: ModuleType, capability: str, operators: str, libraries: bool) -> None:
    assert ladder.predict(capability, OPERATORS, CAFFE2) == (operators, libraries, libraries)


def test_a_build_with_ptx_everywhere_serves_newer_gpus_whole(ladder: ModuleType) -> None:
    assert ladder.predict("9.0", OPERATORS, OPERATORS) == ("ptx", True, True)
    assert ladder.predict("9.0", OPERATORS, OPERATORS, [{LIBRARY_KEY: 300}]) == ("ptx", False, True)
    assert ladder.predict("9.0", OPERATORS, OPERATORS, [{((), ("7.0",)): 2, LIBRARY_KEY: 1}]) == ("ptx", False, True)


def test_without_code_nothing_is_predicted_to_run(ladder: ModuleType) -> None:
    assert ladder.predict("7.0", {}, CAFFE2) == ("", True, True)
    assert ladder.predict("7.0", OPERATORS, {}) == ("", False, False)


def test_libraries_outside_of_caffe2_count(ladder: ModuleType, tmp_path: Path) -> None:
    """As in a conda package, where cuDNN is the prefix's own."""
    caffe2 = caffe2_install(tmp_path / "caffe2", OWN, needed=("libc.so.6", "libcudnn.so.7"))
    (tmp_path / "nvidia_libs" / "lib64").mkdir(parents=True)
    (tmp_path / "nvidia_libs" / "lib64" / "libcudnn.so.7").write_bytes(elf(LIBRARY))
    installs = {"caffe2": str(caffe2), "nvidia_libs": str(tmp_path / "nvidia_libs")}
    gpus = [gpu("9.0"), gpu("7.5", 1)]
    assert ladder.predictions(ladder.Stack(installs, gpus=gpus)) == [("ptx", False, True), ("code", True, True)]


@pytest.mark.parametrize(
    ("capability", "status", "words"),
    [
        ("7.0", "passed", "there is machine code for it"),
        ("9.0", "failed", "cuDNN, cuBLAS and NCCL hold machine code for 3.5 to 7.0 only"),
        ("3.0", "failed", "nothing will run"),
    ],
)
def test_prediction_is_said_in_plain_words(
    ladder: ModuleType, tmp_path: Path, capability: str, status: str, words: str
) -> None:
    stack = ladder.Stack({"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, gpus=[gpu(capability)])
    found = run(ladder, "compute_capability", stack)
    assert found["status"] == status
    sentence = found["detail"] or found["reason"]
    assert sentence.startswith(f"GPU 0 (Some GPU, compute capability {capability})")
    assert words in sentence
    if status == "failed":
        assert found["remedy"].startswith("use a GPU of compute capability 3.5 to 7.x")


def test_gpus_of_one_kind_share_a_sentence(ladder: ModuleType, tmp_path: Path) -> None:
    gpus = [gpu("7.0"), gpu("9.0", 1), gpu("7.0", 2), gpu("9.0", 10)]
    stack = ladder.Stack({"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, gpus=gpus)
    new = "GPUs 1, 10 (Some GPU, compute capability 9.0): "
    sentences = run(ladder, "compute_capability", stack)["reason"].split("; ")
    assert sentences[0] == "GPUs 0, 2 (Some GPU, compute capability 7.0): there is machine code for it"
    assert sentences[1].startswith(f"{new}Caffe2's own operators will run")
    assert len(sentences) == 2
    assert ladder.compilation_notice(stack).startswith(f"{new}no machine code")


@pytest.mark.parametrize(("gpus", "status"), [(1, "passed"), (2, "failed")])
def test_without_nccl_one_gpu_is_served_and_two_are_not(
    ladder: ModuleType, tmp_path: Path, gpus: int, status: str
) -> None:
    caffe2 = caffe2_install(tmp_path / "caffe2", OWN, needed=("libnccl.so.2",))
    (tmp_path / "nvidia_libs" / "lib64").mkdir(parents=True)
    (tmp_path / "nvidia_libs" / "lib64" / "libnccl.so.2").write_bytes(elf(LIBRARY))
    installs = {"caffe2": str(caffe2), "nvidia_libs": str(tmp_path / "nvidia_libs")}
    stack = ladder.Stack(installs, gpus=[gpu("9.0", index) for index in range(gpus)])
    found = run(ladder, "compute_capability", stack)
    assert found["status"] == status
    assert "but for NCCL: train on one GPU" in found["detail"] + found["reason"]


def test_a_compilation_is_announced_with_its_reason(ladder: ModuleType, tmp_path: Path) -> None:
    install = {"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}
    notice = ladder.compilation_notice(ladder.Stack(install, gpus=[gpu("9.0")]))
    for words in (
        "compute capability 9.0",
        "no machine code",
        "10 to 30 minutes",
        "cuDNN, cuBLAS and NCCL",
        "measured all the same",
    ):
        assert words in notice
    assert ladder.compilation_notice(ladder.Stack(install, gpus=[gpu("7.5")])) == ""
    assert ladder.compilation_notice(ladder.Stack(install)) == ""
    assert ladder.compilation_notice(ladder.Stack({"caffe2": "/nowhere"}, gpus=[gpu("9.0")])) == ""


# --- beside measurement ---


@pytest.mark.parametrize(
    ("capability", "operator", "cudnn_cublas", "verdict"),
    [
        ("9.0", "passed", "failed", "they agree"),  # as measured on an NVIDIA H200
        ("9.0", "passed", "passed", "they DISAGREE"),
        ("7.0", "passed", "passed", "they agree"),
        ("7.0", "failed", "failed", "they DISAGREE"),
        ("7.0", "passed", "not_applicable", ""),
    ],
)
def test_prediction_stands_beside_measurement(
    ladder: ModuleType, tmp_path: Path, capability: str, operator: str, cudnn_cublas: str, verdict: str
) -> None:
    install = {"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}
    stack = ladder.Stack(install, gpus=[gpu(capability), gpu(capability, 1)])
    climbed = rungs(ladder, operator=operator, cudnn_cublas=cudnn_cublas)
    rows = ladder.outlook(stack, climbed)
    assert ladder.verdict(rows[0]) == verdict
    assert ladder.verdict(rows[1]) == ""  # the checks use the first GPU
    report = {"host": "h", "generation": "", "gpus": stack.gpus, "rungs": [], "outlook": rows}
    lines = ladder.table(report).splitlines()
    at = lines.index(f"GPU 0 (Some GPU, compute capability {capability})")
    assert lines[at + 1].startswith("  predicted  operators work")
    assert lines[at + 2].startswith("  measured   operators ")
    assert lines[at + 3] == (f"  {verdict}" if verdict else "")


@pytest.mark.parametrize(
    ("capabilities", "multi_gpu", "predicted", "measured", "verdict"),
    [
        (["9.0", "9.0"], "failed", ", NCCL fails", ", NCCL fails", "they agree"),
        (["9.0", "9.0"], "passed", ", NCCL fails", ", NCCL works", "they DISAGREE"),
        (["9.0", "9.0"], "not_applicable", ", NCCL fails", "fail", "they agree"),  # not asked for with --rungs
        (["7.0", "7.0"], "passed", ", NCCL works", ", NCCL works", "they agree"),
        (["7.0", "9.0"], "failed", ", NCCL fails", ", NCCL fails", "they agree"),  # the sum goes over both
        (["9.0"], "not_applicable", "fail", "fail", "they agree"),
    ],
)
def test_a_sum_over_all_gpus_is_predicted_for_all_of_them(
    ladder: ModuleType,
    tmp_path: Path,
    capabilities: list[str],
    multi_gpu: str,
    predicted: str,
    measured: str,
    verdict: str,
) -> None:
    gpus = [gpu(capability, index) for index, capability in enumerate(capabilities)]
    stack = ladder.Stack({"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, gpus=gpus)
    libraries = "passed" if capabilities[0] == "7.0" else "failed"
    rows = ladder.outlook(stack, rungs(ladder, operator="passed", cudnn_cublas=libraries, multi_gpu=multi_gpu))
    assert ladder.outlook_words(rows[0]["predicted"]).endswith(predicted)
    assert ladder.outlook_words(rows[0]["measured"]).endswith(measured)
    assert ladder.verdict(rows[0]) == verdict
    assert {row["predicted"]["nccl"] for row in rows} == {rows[0]["predicted"]["nccl"]}


def test_a_driver_that_is_too_old_is_part_of_the_prediction(ladder: ModuleType, tmp_path: Path) -> None:
    stack = ladder.Stack({"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, gpus=[gpu("7.0")])
    climbed = rungs(ladder, predicted="failed", operator="failed", cudnn_cublas="failed")
    climbed[4]["checks"] = [{"name": "driver", "status": "failed"}]
    assert ladder.verdict(ladder.outlook(stack, climbed)[0]) == "they agree"


@pytest.mark.parametrize(
    ("record", "name", "gpus", "nccl"),
    [("nvidia-h200", "NVIDIA H200", 1, None), ("nvidia-h100x2", "NVIDIA H100 80GB HBM3", 2, False)],
)
def test_what_was_measured_on_real_gpus_is_what_the_code_predicts(
    ladder: ModuleType, tmp_path: Path, record: str, name: str, gpus: int, nccl: bool | None
) -> None:
    recorded = json.loads((ROOT / "docs" / "recorded" / f"{record}-ladder.json").read_text())
    stack = ladder.Stack({"caffe2": str(caffe2_install(tmp_path, OWN, LIBRARY))}, gpus=recorded["gpus"])
    rows = ladder.outlook(stack, recorded["rungs"])
    assert [(row["name"], row["compute_capability"]) for row in rows] == [(name, "9.0")] * gpus
    assert rows[0]["predicted"] == {"operators": True, "libraries": False, "nccl": nccl, "compilation": True}
    assert rows[0]["measured"] == {"operators": True, "libraries": False, "nccl": nccl}
    assert rows[0]["agree"]
    assert recorded.get("outlook", rows) == rows
