"""Filters that judge what `preflight_probe` found on a server: the catalogue of findings, in one place.

A finding is `stop` when installing would fail, or what is installed could not start; `warn` when the install works
but a part of it will not be of use, or needs a person's decision; `info` when the stack takes care of it by itself
and a person who debugs should know.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleFilterError

SEVERITIES = ("stop", "warn", "info")

# Kernels before 5.1 cut the first line of a script at 127 characters; conda and pip keep to that limit on all.
SHEBANG_LIMIT = 127
# Major versions in the file names that all stacks load: libcudnn.so.7 and libnccl.so.2.
LIBRARY_MAJORS = {"libcudnn": 7, "libnccl": 2}
# Below this, even a shell's here-documents and an editor's temporary files fail.
TMP_BYTES = 100_000_000

Server = Mapping[str, Any]
Evidence = Mapping[str, object]


@dataclass(frozen=True)
class Requirements:
    """What a stack asks of a server."""

    architecture: str
    glibc_min: str
    python_min: str
    driver_min: str
    code: tuple[tuple[int, int], ...]  # compute capabilities with machine code in the stack's libraries
    ptx: tuple[tuple[int, int], ...]  # and those with PTX, which a driver can compile for newer GPUs
    needed_bytes: int
    needed_files: int
    interpreters: tuple[str, ...]  # full paths that scripts of the stack name in their first line
    build_needed: bool

    @staticmethod
    def of(data: Mapping[str, Any]) -> Requirements:
        """From `stack_lock.requirements`, joined by the role with what is still to be installed."""
        try:
            return Requirements(
                architecture=data["architecture"],
                glibc_min=str(data["glibc_min"]),
                python_min=str(data["python_min"]),
                driver_min=str(data["driver_min"]),
                code=tuple(sorted(map(capability, data["compute_capabilities"]["code"]))),
                ptx=tuple(sorted(map(capability, data["compute_capabilities"]["ptx"]))),
                needed_bytes=int(data["needed_bytes"]),
                needed_files=int(data["needed_files"]),
                interpreters=tuple(data["interpreters"]),
                build_needed=bool(data["build_needed"]),
            )
        except KeyError as error:
            raise AnsibleFilterError(
                f"preflight_findings: the requirements lack {error}. They are stack_lock.requirements, in the lock of "
                "the stack (group_vars/stack_<name>/), joined with the knobs of role preflight."
            ) from error


@dataclass(frozen=True)
class Check:
    """One entry of the catalogue. `what`, `cause` and `remedy` are templates over the evidence."""

    id: str
    severity: str
    title: str
    what: str
    cause: str
    remedy: str
    evidence: Callable[[Server, Requirements], Evidence | None]  # None: nothing to report


def version(text: str) -> tuple[int, ...]:
    """Numbers of a version, comparable: "384.81" -> (384, 81)."""
    return tuple(map(int, re.findall(r"\d+", text)))


def capability(value: object) -> tuple[int, int]:
    """A compute capability as (major, minor), from "7.0", 7.0, 70 or "sm_70"."""
    text = str(value).removeprefix("sm_")
    major, dot, minor = text.partition(".")
    if not dot:
        major, minor = text[:-1], text[-1:]
    if not (major.isdigit() and minor.isdigit()):
        raise AnsibleFilterError(f"{value!r} is not a compute capability; write it like 7.0 or sm_70.")
    return int(major), int(minor)


def size(count: int) -> str:
    """Bytes in decimal units, as disks are sold: 1_500_000_000 -> "1.5 GB"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def listed(items: Iterable[object]) -> str:
    """Items in their order, each once: "a, b, c"."""
    return ", ".join(dict.fromkeys(map(str, items)))


# --- Evidence: what is reported, or None ------------------------------------------------------------------------------


def other_architecture(server: Server, needs: Requirements) -> Evidence | None:
    found = server["architecture"]
    return {"found": found, "needed": needs.architecture} if found != needs.architecture else None


def old_glibc(server: Server, needs: Requirements) -> Evidence | None:
    found = server["glibc"]
    if found and version(found) >= version(needs.glibc_min):
        return None
    return {"found": f"glibc {found}" if found else "another C library than glibc", "needed": needs.glibc_min}


def old_python(server: Server, needs: Requirements) -> Evidence | None:
    python = server["python"]
    old = version(python["version"]) < version(needs.python_min)
    return {**python, "needed": needs.python_min} if old else None


def unwritable_prefix(server: Server, needs: Requirements) -> Evidence | None:
    prefix = server["filesystems"]["prefix"]
    return None if prefix["writable"] else {**prefix, "user": server["user"]["name"]}


def noexec_prefix(server: Server, needs: Requirements) -> Evidence | None:
    prefix = server["filesystems"]["prefix"]
    return prefix if prefix["noexec"] else None


def unsafe_prefix(server: Server, needs: Requirements) -> Evidence | None:
    path = server["filesystems"]["prefix"]["path"]
    unsafe = dict.fromkeys(re.findall(r"[^A-Za-z0-9/._+@=,~-]", path))
    return {"path": path, "unsafe": listed(map(repr, unsafe))} if unsafe else None


def long_prefix(server: Server, needs: Requirements) -> Evidence | None:
    path = server["filesystems"]["prefix"]["path"]
    longest = max((len(f"#!{interpreter}") for interpreter in needs.interpreters), default=0)
    if longest <= SHEBANG_LIMIT:
        return None
    return {"path": path, "length": longest, "limit": SHEBANG_LIMIT, "excess": longest - SHEBANG_LIMIT}


def room(prefix: Mapping[str, Any], kind: str) -> tuple[int | None, str]:
    """What is left in `bytes` or `files`, the smaller of disk and quota, and whose limit that is."""
    limits = [(prefix[f"free_{kind}"], "the filesystem"), (prefix[f"quota_{kind}"], "the login's quota")]
    known = [limit for limit in limits if limit[0] is not None]
    return min(known, default=(None, ""))


def full_disk(server: Server, needs: Requirements) -> Evidence | None:
    prefix = server["filesystems"]["prefix"]
    free, whose = room(prefix, "bytes")
    if free is None or free >= needs.needed_bytes:
        return None
    return {"free": size(free), "needed": size(needs.needed_bytes), "whose": whose, "nearest": prefix["nearest"]}


def no_inodes(server: Server, needs: Requirements) -> Evidence | None:
    prefix = server["filesystems"]["prefix"]
    free, whose = room(prefix, "files")
    if free is None or free >= needs.needed_files:
        return None
    return {"free": free, "needed": needs.needed_files, "whose": whose, "nearest": prefix["nearest"]}


def no_compiler(server: Server, needs: Requirements) -> Evidence | None:
    error = server["tools"]["gcc"]["error"]
    return {"error": error} if error and needs.build_needed else None


def broken_driver(server: Server, needs: Requirements) -> Evidence | None:
    gpu = server["gpu"]
    return gpu if gpu["driver"] and not gpu["devices"] else None


def no_driver(server: Server, needs: Requirements) -> Evidence | None:
    gpu = server["gpu"]
    if gpu["driver"] or gpu["devices"] or not gpu["boards"]:
        return None
    return {"boards": listed(gpu["boards"])}


def no_gpu(server: Server, needs: Requirements) -> Evidence | None:
    gpu = server["gpu"]
    return None if gpu["driver"] or gpu["devices"] or gpu["boards"] else {}


def old_driver(server: Server, needs: Requirements) -> Evidence | None:
    found = server["gpu"]["driver"]
    if not found or version(found) >= version(needs.driver_min):
        return None
    return {"found": found, "needed": needs.driver_min}


def support(device: Mapping[str, Any], needs: Requirements) -> str:
    """How the stack's GPU code reaches a device: code | ptx | none | unknown.

    Machine code runs on GPUs of the same major and the same or a higher minor capability; PTX is compiled by the
    driver for any GPU of the same or a higher capability (CUDA C++ Programming Guide, binary and PTX compatibility).
    """
    if not device["compute_capability"]:
        return "unknown"
    own = capability(device["compute_capability"])
    if any(code[0] == own[0] and code[1] <= own[1] for code in needs.code):
        return "code"
    return "ptx" if any(ptx <= own for ptx in needs.ptx) else "none"


def devices_with(kind: str) -> Callable[[Server, Requirements], Evidence | None]:
    """Evidence for the GPUs whose `support` is `kind`."""

    def evidence(server: Server, needs: Requirements) -> Evidence | None:
        devices = server["gpu"]["devices"]
        found = [device for device in devices if support(device, needs) == kind]
        if not found:
            return None
        instead = "Use another server, with a GPU of those"
        good = ",".join(str(device["index"]) for device in devices if support(device, needs) == "code")
        if good:
            # nvidia-smi counts by PCI bus; CUDA by itself counts the fastest first.
            instead = f"Set CUDA_DEVICE_ORDER=PCI_BUS_ID and CUDA_VISIBLE_DEVICES={good}"
        texts = (f"GPU {gpu['index']} ({gpu['name']}, {gpu['compute_capability'] or 'unknown'})" for gpu in found)
        covered, compiled = (listed(f"{major}.{minor}" for major, minor in have) for have in (needs.code, needs.ptx))
        return {"gpus": listed(texts), "covered": covered, "compiled": compiled, "instead": instead}

    return evidence


def operators_elsewhere(server: Server, needs: Requirements) -> Evidence | None:
    paths = server["detectron_operators"]
    return {"paths": listed(paths)} if paths else None


def settings(names: str) -> Callable[[Server, Requirements], Evidence | None]:
    """Evidence for the settings of the environment whose names match the pattern `names`."""

    def evidence(server: Server, needs: Requirements) -> Evidence | None:
        found = [entry for entry in server["environment"] if re.fullmatch(names, entry["name"])]
        texts = (
            f"{entry['name']}={textwrap.shorten(entry['value'], 60, placeholder='…')} "
            + ("in the environment" if entry["where"] == "environment" else f"set in {entry['where']}")
            for entry in found
        )
        return {"settings": listed(texts)} if found else None

    return evidence


def bad_visibility(server: Server, needs: Requirements) -> Evidence | None:
    found = [entry for entry in server["environment"] if entry["name"] == "CUDA_VISIBLE_DEVICES"]
    bad = [entry for entry in found if not re.fullmatch(r"\d+(,\d+)*", entry["value"])]
    return {"settings": listed(f"{entry['value']!r} ({entry['where']})" for entry in bad)} if bad else None


def broken_locale(server: Server, needs: Requirements) -> Evidence | None:
    found = [f"{name}={value}" for name, value in server["locale"].items() if value.upper() in ("UTF-8", "UTF8")]
    return {"settings": listed(found)} if found else None


def open_umask(server: Server, needs: Requirements) -> Evidence | None:
    return None if server["umask"] & 0o002 else {"umask": f"{server['umask']:04o}"}


def privileged(server: Server, needs: Requirements) -> Evidence | None:
    return {"name": server["user"]["name"]} if server["user"]["uid"] == 0 else None


def network(name: str) -> Callable[[Server, Requirements], Evidence | None]:
    """Evidence for a filesystem that other servers may see as well."""

    def evidence(server: Server, needs: Requirements) -> Evidence | None:
        found = server["filesystems"][name]
        return found if found["network"] else None

    return evidence


def user_site(server: Server, needs: Requirements) -> Evidence | None:
    found = server["user_site"]
    return {"path": found["path"], "packages": listed(found["shadowing"])} if found["shadowing"] else None


def config_files(server: Server, needs: Requirements) -> Evidence | None:
    found = server["config_files"]
    return {"paths": listed(found)} if found else None


def foreign_libraries(server: Server, needs: Requirements) -> Evidence | None:
    other = [
        f"{library['path']} (by {library['where']})"
        for library in server["libraries"]
        if library["major"] != LIBRARY_MAJORS[library["name"].split(".")[0]]
    ]
    return {"libraries": listed(other)} if other else None


def no_display(server: Server, needs: Requirements) -> Evidence | None:
    return None if server["display"] else {}


def missing_tools(server: Server, needs: Requirements) -> Evidence | None:
    missing = [name for name in ("git", "make") if server["tools"][name]["error"]]
    return {"missing": " and ".join(missing)} if missing else None


def full_tmp(server: Server, needs: Requirements) -> Evidence | None:
    free = server["filesystems"]["tmp"]["free_bytes"]
    return {"free": size(free)} if free is not None and free < TMP_BYTES else None


# --- The catalogue, in the order in which findings are shown ----------------------------------------------------------

CATALOGUE = (
    Check(
        id="architecture",
        severity="stop",
        title="Machine of another architecture",
        what="The server is {found}; the stack is for {needed}.",
        cause="Caffe2, cuDNN and the Python of the stack are machine code for one architecture.",
        remedy="Take this server out of the stack's group; use one that is {needed}.",
        evidence=other_architecture,
    ),
    Check(
        id="glibc",
        severity="stop",
        title="C library too old, or not glibc",
        what="The server has {found}; the stack needs glibc {needed} or newer.",
        cause="The stack's compiled code calls functions that older and other C libraries lack, and would not load.",
        remedy="Use a server with a newer distribution, or log in to a container with one.",
        evidence=old_glibc,
    ),
    Check(
        id="python",
        severity="stop",
        title="Python for Ansible's modules too old",
        what="{executable} is Python {version}; the modules need {needed} or newer.",
        cause="Ansible runs its modules with the server's own Python 3. (The stack brings its Python 2.7 itself.)",
        remedy="Set ansible_python_interpreter for this server in the inventory to a newer Python 3, such as "
        "/usr/bin/python3.11 or one in your home; or bootstrap_python: true, which puts one into the prefix.",
        evidence=old_python,
    ),
    Check(
        id="prefix_not_writable",
        severity="stop",
        title="Prefix cannot be written",
        what="{path} cannot be written: {user} may not create files in {nearest}, or it is no folder.",
        cause="All that a stack has on a server lies in its prefix.",
        remedy="Set stack_prefix to a folder of your own, in your home or on a scratch disk.",
        evidence=unwritable_prefix,
    ),
    Check(
        id="prefix_noexec",
        severity="stop",
        title="Prefix on a filesystem that forbids running programs",
        what="{path} lies on {source} ({type}), which is mounted with noexec.",
        cause="Neither Python nor any shared library could be started from there: Permission denied, or "
        "'failed to map segment from shared object'.",
        remedy="Set stack_prefix to a folder on a filesystem without noexec (see /proc/mounts).",
        evidence=noexec_prefix,
    ),
    Check(
        id="prefix_name",
        severity="stop",
        title="Prefix with characters that tools cannot handle",
        what="{path} contains {unsafe}.",
        cause="A blank ends the interpreter's path in a script's first line, a colon ends an entry of a library path, "
        "and conda for Python 2.7 fails on others.",
        remedy="Set stack_prefix to an absolute path of letters, digits and . _ + @ = , ~ - only, also where the home "
        "itself has such a name.",
        evidence=unsafe_prefix,
    ),
    Check(
        id="prefix_length",
        severity="stop",
        title="Prefix too long",
        what="With {path}, the first line of scripts has {length} characters; at most {limit} work.",
        cause="Kernels cut longer first lines off ('bad interpreter'), and conda refuses to write them.",
        remedy="Set stack_prefix to a path that is shorter, by {excess} or more.",
        evidence=long_prefix,
    ),
    Check(
        id="disk",
        severity="stop",
        title="Too little disk space",
        what="{whose} leaves {free} at {nearest}; {needed} are needed for what is still to be installed.",
        cause="Installs are built beside the ones in use, so that a failure leaves those untouched.",
        remedy="Free some space there, or set stack_prefix to a folder on a larger filesystem.",
        evidence=full_disk,
    ),
    Check(
        id="inodes",
        severity="stop",
        title="Too few files left",
        what="{whose} leaves {free} files at {nearest}; {needed} are needed for what is still to be installed.",
        cause="A Python environment is tens of thousands of small files, and each takes an inode.",
        remedy="Remove trees of small files there (old environments, caches), or set stack_prefix to another "
        "filesystem.",
        evidence=no_inodes,
    ),
    Check(
        id="compiler",
        severity="stop",
        title="No working C compiler",
        what="gcc does not work: {error}.",
        cause="cocoapi and Detectron have C extensions, which are compiled on the server by a command named gcc.",
        remedy="Ask the administrator for gcc and the C library's headers (gcc and libc6-dev, or glibc-devel), or put "
        "a gcc of your own, or of an environment module, on the PATH of non-interactive logins.",
        evidence=no_compiler,
    ),
    Check(
        id="gpu_driver_broken",
        severity="warn",
        title="NVIDIA driver that does not answer",
        what="Driver {driver} is loaded, but lists no GPU: {error}.",
        cause="After an update of the driver's files without a reboot, or after a GPU failed, no program can use CUDA.",
        remedy="Ask the administrator to reload the driver or to reboot. Until then only CPU rungs can pass.",
        evidence=broken_driver,
    ),
    Check(
        id="gpu_without_driver",
        severity="warn",
        title="NVIDIA GPU without a driver",
        what="There are NVIDIA boards at {boards}, but no NVIDIA driver is loaded.",
        cause="CUDA needs NVIDIA's kernel driver; it cannot be installed without root.",
        remedy="Ask the administrator for NVIDIA's driver. Until then only CPU rungs can pass.",
        evidence=no_driver,
    ),
    Check(
        id="gpu_none",
        severity="warn",
        title="No NVIDIA GPU",
        what="The server has no NVIDIA GPU.",
        cause="Detectron's own operators exist for GPUs only. The stack installs all the same, and its CPU checks run.",
        remedy="To train, use a server with a GPU. The prefix may be shared with it.",
        evidence=no_gpu,
    ),
    Check(
        id="gpu_driver_old",
        severity="warn",
        title="NVIDIA driver too old for the stack's CUDA",
        what="The driver is {found}; the stack's CUDA needs {needed} or newer.",
        cause="CUDA then finds no device at all (NumCudaDevices is 0), although the import works.",
        remedy="Ask the administrator for a newer driver, or choose a stack of an older CUDA line.",
        evidence=old_driver,
    ),
    Check(
        id="gpu_too_new",
        severity="warn",
        title="GPU newer than the stack's machine code",
        what="{gpus}: Caffe2's own operators will run, after a one-time compilation of minutes; cuDNN and cuBLAS will "
        "not.",
        cause="The stack has machine code for compute capability {covered}. For newer ones the driver compiles PTX (of "
        "{compiled}), which Caffe2's own operators have, so Detectron's operator test passes. cuDNN and cuBLAS do not "
        "have it everywhere: convolutions and matrix products fail with CUDNN_STATUS_EXECUTION_FAILED and "
        "CUBLAS_STATUS_EXECUTION_FAILED.",
        remedy="{instead}, or choose a stack of a newer CUDA line. Nothing can be trained on these.",
        evidence=devices_with("ptx"),
    ),
    Check(
        id="gpu_too_old",
        severity="warn",
        title="GPU without any code in the stack",
        what="{gpus}: the stack has machine code for compute capability {covered}.",
        cause="There is neither machine code nor PTX for these GPUs: 'no kernel image is available for execution'.",
        remedy="{instead}, or choose a stack of another CUDA line.",
        evidence=devices_with("none"),
    ),
    Check(
        id="gpu_unknown",
        severity="warn",
        title="GPU of unknown compute capability",
        what="{gpus}: neither nvidia-smi nor CUDA told more.",
        cause="Whether the stack, with code for compute capability {covered}, serves it is open.",
        remedy="Look it up in NVIDIA's list of CUDA GPUs. The GPU rungs of the check ladder decide.",
        evidence=devices_with("unknown"),
    ),
    Check(
        id="gpu_visibility",
        severity="warn",
        title="CUDA_VISIBLE_DEVICES that Detectron cannot read",
        what="CUDA_VISIBLE_DEVICES is {settings}.",
        cause="Detectron reads it as integers, as many as NUM_GPUS: other names end in a ValueError. An empty value "
        "hides all GPUs.",
        remedy="Set it to integers, as in CUDA_VISIBLE_DEVICES=0,1, before checks and training runs.",
        evidence=bad_visibility,
    ),
    Check(
        id="operators_elsewhere",
        severity="warn",
        title="Detectron operators in /usr/local",
        what="There is {paths}.",
        cause="Detectron looks in /usr/local before it looks in its own environment, and would load this one into "
        "another Caffe2.",
        remedy="Ask the administrator to remove or rename it. The check ladder names the library that was loaded, and "
        "fails where it is not the prefix's.",
        evidence=operators_elsewhere,
    ),
    Check(
        id="locale",
        severity="warn",
        title="Locale that Python 2.7 does not know",
        what="{settings} in the environment.",
        cause="macOS sends such a value over SSH. Python 2.7 then fails in matplotlib: 'unknown locale: UTF-8'.",
        remedy="Set it to C.UTF-8 on the server, or stop your SSH client from sending LC_* (SendEnv).",
        evidence=broken_locale,
    ),
    Check(
        id="umask",
        severity="warn",
        title="umask that lets anybody write",
        what="The umask is {umask}.",
        cause="Anybody on the server could change your working copies and outputs. (Installs are read-only.)",
        remedy="Put umask 022, or stricter, into the login's start-up file.",
        evidence=open_umask,
    ),
    Check(
        id="root",
        severity="info",
        title="Login is root",
        what="The login is {name}, with uid 0.",
        cause="Nothing here needs root, and read-only installs are not read-only to root.",
        remedy="Use an account without privileges, where there is one.",
        evidence=privileged,
    ),
    Check(
        id="python_environment",
        severity="info",
        title="Python settings in the environment",
        what="{settings}.",
        cause="Python would import from there before its own packages.",
        remedy="Nothing to do: the stack's own commands and its activation replace these.",
        evidence=settings("PYTHONPATH|PYTHONHOME|PYTHONUSERBASE"),
    ),
    Check(
        id="loader_environment",
        severity="info",
        title="Library settings in the environment",
        what="{settings}.",
        cause="The loader would take libraries from there before the system's.",
        remedy="Nothing to do while the prefix's libraries come first, which the activation sees to: activate after "
        "these are set, not before. Where an import fails on a library, unset LD_PRELOAD.",
        evidence=settings("LD_LIBRARY_PATH|LD_PRELOAD"),
    ),
    Check(
        id="installer_environment",
        severity="info",
        title="pip or conda settings in the environment",
        what="{settings}.",
        cause="They redirect where pip and conda look and where they write.",
        remedy="Nothing to do: the stack installs with settings of its own, from verified files only.",
        evidence=settings(r"PIP_\w+|CONDA_\w+"),
    ),
    Check(
        id="compiler_environment",
        severity="info",
        title="Compiler settings in the environment",
        what="{settings}.",
        cause="distutils adds them to the commands that build cocoapi and Detectron.",
        remedy="Nothing to do: the stack builds with settings of its own. Your own builds are affected.",
        evidence=settings("CC|CXX|CFLAGS|CXXFLAGS|CPPFLAGS|LDFLAGS|CPATH|C_INCLUDE_PATH|LIBRARY_PATH"),
    ),
    Check(
        id="plot_environment",
        severity="info",
        title="Plot backend in the environment",
        what="{settings}.",
        cause="pycocotools imports matplotlib's pyplot, and a backend with windows needs an X display.",
        remedy="Nothing to do: the stack sets MPLBACKEND=Agg.",
        evidence=settings("MPLBACKEND"),
    ),
    Check(
        id="display",
        severity="info",
        title="No X display",
        what="DISPLAY is not set.",
        cause="pycocotools imports matplotlib's pyplot, which would fail with 'no display name and no $DISPLAY'.",
        remedy="Nothing to do: the stack sets MPLBACKEND=Agg, which needs neither a display nor xorg.",
        evidence=no_display,
    ),
    Check(
        id="user_site",
        severity="info",
        title="Packages in Python 2.7's user site",
        what="{path} holds {packages}.",
        cause="Left by pip install --user. Every Python 2.7 of the login prefers them to its own packages.",
        remedy="Nothing to do for the stack: it sets PYTHONNOUSERSITE=1.",
        evidence=user_site,
    ),
    Check(
        id="config_files",
        severity="info",
        title="Configuration of pip, conda or distutils",
        what="There is {paths}.",
        cause="These change where pip and conda look, and where distutils builds and installs.",
        remedy="Nothing to do: the stack's commands run with a home of their own and read none of these.",
        evidence=config_files,
    ),
    Check(
        id="foreign_libraries",
        severity="info",
        title="cuDNN or NCCL of another version",
        what="The loader knows {libraries}.",
        cause="The stack needs libcudnn.so.7 and libnccl.so.2, and builds that link -lcudnn or -lnccl may take these.",
        remedy="Nothing to do: the prefix has its own usr/local, which the activation puts first.",
        evidence=foreign_libraries,
    ),
    Check(
        id="network_prefix",
        severity="info",
        title="Prefix on a network filesystem",
        what="{path} lies on {source} ({type}).",
        cause="Servers that share it share the installs. Many small files are slow there.",
        remedy="Nothing to do: one server builds and the others wait; checks are kept for each server. To be faster, "
        "set stack_prefix to a local disk.",
        evidence=network("prefix"),
    ),
    Check(
        id="network_home",
        severity="info",
        title="Home on a network filesystem",
        what="{path} lies on {source} ({type}).",
        cause="Other servers may have the same home, with the same caches and configuration.",
        remedy="Nothing to do: the stack leaves the home alone, apart from a prefix in it.",
        evidence=network("home"),
    ),
    Check(
        id="tools",
        severity="info",
        title="No git or make",
        what="The server has no working {missing}.",
        cause="Source trees are exported by git, and Detectron's Makefile is for people.",
        remedy="Nothing to do while the controller pushes the sources from its mirror and nobody builds own operators "
        "(make ops).",
        evidence=missing_tools,
    ),
    Check(
        id="tmp",
        severity="info",
        title="/tmp is almost full",
        what="/tmp has {free} left.",
        cause="Shells and editors write there.",
        remedy="Nothing to do for the stack: its temporary files lie in the prefix.",
        evidence=full_tmp,
    ),
)


# --- Filters ----------------------------------------------------------------------------------------------------------


def sentence(template: str, evidence: Evidence) -> str:
    """A filled-in template that begins with a capital, unless it begins with a path or a variable."""
    text = template.format_map(evidence)
    return text[0].upper() + text[1:] if template.startswith("{whose}") else text


def preflight_findings(
    server: Server, requirements: Mapping[str, Any], accepted: Collection[str] = ()
) -> list[dict[str, str]]:
    """The findings about a server: [{id, severity, title, what, cause, remedy}], what stops first.

    `server` is what preflight_probe returned. `requirements` is `stack_lock.requirements` with needed_bytes,
    needed_files, interpreters and build_needed. Findings whose ids are in `accepted` are left out.
    """
    unknown = set(accepted) - {check.id for check in CATALOGUE}
    if unknown:
        raise AnsibleFilterError(
            f"There is no finding {listed(sorted(unknown))} to accept. There are: {listed(c.id for c in CATALOGUE)}."
        )
    needs = Requirements.of(requirements)
    findings = []
    for check in sorted(CATALOGUE, key=lambda check: SEVERITIES.index(check.severity)):
        evidence = None if check.id in accepted else check.evidence(server, needs)
        if evidence is not None:
            texts = {part: sentence(getattr(check, part), evidence) for part in ("what", "cause", "remedy")}
            findings.append({"id": check.id, "severity": check.severity, "title": check.title, **texts})
    return findings


def preflight_table(findings: list[dict[str, str]], width: int = 100) -> str:
    """Findings as text of at most `width` columns: severity, id and title, then what, why and what to do, aligned."""

    def block(finding: Mapping[str, str]) -> str:
        lines = [f"{finding['severity'].upper():<5} {finding['id']}: {finding['title']}"]
        for label, part in (("Found", "what"), ("Cause", "cause"), ("Remedy", "remedy")):
            lead = f"      {label:<8}"
            lines += textwrap.wrap(
                finding[part], width, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False
            )
        return "\n".join(lines)

    return "\n".join(map(block, findings))


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "preflight_findings": preflight_findings,
            "preflight_table": preflight_table,
        }
