"""Runs of experiments: `runs/<experiment>/`, each with one process at a time, started detached.

    config.yaml      what Detectron is told; OUTPUT_DIR is this folder
    datasets.json    what its dataset names mean here
    experiment.json  what was asked for and what it was made of
    run.sh           the command; log.txt: what it says
    process.json     the process that supervises it (files/supervise_run.py); exit.json: how it ended
    events.jsonl     each start and each end, one line each
    train/, test/    Detectron's own output

Who starts a run takes the lease `running.json` in its folder (stack_lease); the supervisor renews it and gives it back.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.stack_installs import StackError, read_json, write_json
from ansible.module_utils.stack_lease import (
    STALE,
    Holder,
    acquire,
    described,
    holder_of,
    is_here,
    look,
    new_probe,
    probed,
    release,
    started_at,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
LEASE = "running.json"
CHECKPOINT = re.compile(r"model_iter(\d+)\.pkl")
FINAL = "model_final.pkl"
FREE_BYTES = 500 * 2**20  # of GPU memory that may be in use on a free GPU: a display, a driver that keeps itself awake
SMI_TIMEOUT = 10.0  # seconds
LOCK_TIMEOUT = 60.0  # seconds


def folder_of(prefix: str, name: str) -> str:
    """Folder of an experiment's run."""
    return os.path.join(prefix, "runs", name)


def names(prefix: str) -> list[str]:
    """Experiments that have been started in a prefix."""
    folder = os.path.join(prefix, "runs")
    found = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in found if os.path.exists(os.path.join(folder, name, "experiment.json")))


# --- What became of a run ---------------------------------------------------------------------------------------------


def alive(folder: str) -> tuple[bool, Holder]:
    """(whether the run works, who started it; {} where nobody does).

    On its own server, its process tells. From another one, which shares the folder, its heartbeat does: it counts as
    lost when it is older than STALE by the file server's clock.
    """
    lease = os.path.join(folder, LEASE)
    holder, heartbeat = look(lease)
    if not heartbeat:
        return False, {}
    if is_here(holder):
        process = read_json(os.path.join(folder, "process.json"))
        if process.get("run") != holder.get("run"):  # not begun yet, or its start was killed
            process = {"pid": holder.get("starter", 0), "started": holder.get("starter_started", "")}
        return started_at(int(process.get("pid", 0))) == process.get("started") != "", holder
    probe = new_probe(lease)
    try:
        return probed(probe) - heartbeat <= STALE, holder
    finally:
        os.unlink(probe)


def state_of(folder: str) -> dict[str, Any]:
    """What became of a run: state (running, finished, failed, stopped, died; "" before the first), where (its server
    and since when), status or signal of its end, ended (seconds since 1970), iteration of its last checkpoint (-1
    without one), final (whether the final model is written), model (the file of the final model, else of the last
    checkpoint)."""
    working, holder = alive(folder)
    facts = read_json(os.path.join(folder, "experiment.json"))
    found: dict[str, Any] = {"where": described_run(holder) if holder else "", **checkpoints(folder)}
    found["server"] = holder.get("server", "") or facts.get("server", "")
    if working:
        return {**found, "state": "running", "here": is_here(holder)}
    return {**found, **became(folder)}


def became(folder: str) -> dict[str, Any]:
    """What became of the last start in a folder, which works no more: state (finished, failed, stopped, died; "" before
    the first); of the first three also status, signal, ended."""
    ended = read_json(os.path.join(folder, "exit.json"))
    facts = read_json(os.path.join(folder, "experiment.json"))
    if ended and ended.get("run") == facts.get("run"):
        state = "stopped" if ended.get("stopped") else "finished" if ended.get("status") == 0 else "failed"
        told = {key: ended.get(key) for key in ("status", "signal", "ended")}
        return {"state": state, **{key: value if isinstance(value, int) else None for key, value in told.items()}}
    return {"state": "died" if facts else ""}


def described_run(holder: Holder) -> str:
    """Where a run works, for people: gpu1, since 2026-11-25 12:00:00."""
    host, server = holder.get("host") or "", holder.get("server") or "another server"
    name = host or server if host in ("", server) else f"{host} ({server})"
    return f"{name}, since {holder.get('since', '?')}"


def is_whole(path: str) -> bool:
    """Whether a model was written to its end, which is that of a pickled dictionary."""
    with open(path, "rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 2))
        return stream.read() in (b"u.", b"s.")


def models(folder: str) -> Iterator[tuple[str, int]]:
    """(file, iteration; -1 for the final one) of all models that a training has written, cut off ones too."""
    for path in _files_of_models(folder):
        match = CHECKPOINT.fullmatch(os.path.basename(path))
        if match or os.path.basename(path) == FINAL:
            yield path, int(match[1]) if match else -1


def _files_of_models(folder: str) -> Iterator[str]:
    """All files that a resume of Detectron takes for a model: those whose names have that of one in them."""
    for top, _folders, files in os.walk(os.path.join(folder, "train")):
        yield from (os.path.join(top, name) for name in files if CHECKPOINT.search(name) or name == FINAL)


def cut_off(folder: str) -> list[str]:
    """What a training left that ended while it wrote a model. A resume would begin from the last one, and fail.

    Some commits of Detectron write a model in place; others first as model_iter<N>.pkl.tmp.<id>, which they take for a
    checkpoint, too.
    """
    written = {path for path, _iteration in models(folder) if is_whole(path)}
    return sorted(set(_files_of_models(folder)) - written)


def set_aside(path: str) -> None:
    """Give a cut off model a name by which no resume finds it."""
    top, name = os.path.split(path)
    os.replace(path, os.path.join(top, name.replace("model_", "cut_off_")))


def checkpoints(folder: str) -> dict[str, Any]:
    """checkpoint (iteration of the last one; -1 without one), final (whether the final model is written), model (the
    file of that, else of the last checkpoint; "" without one)."""
    found: dict[str, Any] = {"checkpoint": -1, "final": False, "model": ""}
    for path, iteration in models(folder):
        with contextlib.suppress(FileNotFoundError):
            if not is_whole(path):
                continue
            if iteration < 0:
                found.update(final=True, model=path)
            elif iteration > found["checkpoint"]:
                found.update(checkpoint=iteration, model=found["model"] if found["final"] else path)
    return found


# --- GPUs -------------------------------------------------------------------------------------------------------------


def rows(text: str) -> list[list[str]]:
    """Lines of nvidia-smi's CSV output, split; lines of another form, such as warnings, are left out."""
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if "," in line]


def gpus() -> list[dict[str, Any]]:
    """This server's GPUs as nvidia-smi lists them: index, name, used (bytes of memory), processes (ids).

    Raises StackError where it does not answer; [] where there is no such program.
    """
    answers = []
    for query in ("gpu=index,uuid,name,memory.used", "compute-apps=gpu_uuid,pid"):
        command = ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SMI_TIMEOUT
            )
        except FileNotFoundError:
            return []
        except subprocess.TimeoutExpired:
            raise StackError(
                f"nvidia-smi did not answer within {SMI_TIMEOUT:.0f} s: the driver hangs. Only a restart of the server "
                "helps; ask who administers it."
            ) from None
        if done.returncode:
            raise StackError(f"nvidia-smi failed: {(done.stdout + done.stderr).strip()[:300]}")
        answers.append(rows(done.stdout))
    return [
        {
            "index": int(index),
            "name": name,
            "used": int(used) * 2**20 if used.isdigit() else 0,
            "processes": [int(pid) for app, pid in answers[1] if app == uuid and pid.isdigit()],
        }
        for index, uuid, name, used in answers[0]
        if index.isdigit()
    ]


def claims(prefix: str) -> dict[int, str]:
    """GPUs of this server that running experiments of the prefix have been given, by index: the experiment's name.

    One that has just been started does not show in nvidia-smi yet.
    """
    found = {}
    for name in names(prefix):
        folder = folder_of(prefix, name)
        working, holder = alive(folder)
        if working and holder.get("server") == socket.gethostname():
            found.update(dict.fromkeys(read_json(os.path.join(folder, "experiment.json")).get("gpu_ids", []), name))
    return found


def choose_gpus(
    listed: list[dict[str, Any]], claimed: Mapping[int, str], count: int, wanted: Iterable[int] = ()
) -> list[int]:
    """Indices of `count` free GPUs, or of the `wanted` ones. Raises StackError, which says who uses the others."""

    def use(gpu: dict[str, Any]) -> str:
        if gpu["index"] in claimed:
            return f"experiment {claimed[gpu['index']]}"
        if gpu["processes"]:
            return f"process {', '.join(map(str, gpu['processes']))}"
        return f"{gpu['used'] / 2**20:.0f} MiB in use" if gpu["used"] > FREE_BYTES else ""

    uses = {gpu["index"]: use(gpu) for gpu in listed}
    table = "; ".join(f"GPU {gpu['index']} ({gpu['name']}): {uses[gpu['index']] or 'free'}" for gpu in listed)
    wanted = list(wanted)
    unknown = sorted(set(wanted) - set(uses))
    if unknown:
        raise StackError(f"There is no GPU {', '.join(map(str, unknown))} here. {table or 'There is none at all.'}")
    if wanted:
        if len(wanted) != count:
            raise StackError(f"gpu_ids names {len(wanted)} GPUs and gpus is {count}: give both the same number.")
        taken = [index for index in wanted if uses[index]]
        if taken:
            raise StackError(f"GPU {', '.join(map(str, taken))} is in use. {table}")
        return wanted
    free = [index for index, used in uses.items() if not used]
    if len(free) < count:
        raise StackError(
            f"Wanted are {count} GPUs, free {len(free)} of {len(listed)}. {table or 'There is none at all.'} "
            "Ask for fewer (gpus), wait, or take another server (--limit). The schedule follows the number of GPUs."
        )
    return free[:count]


@contextlib.contextmanager
def one_at_a_time(prefix: str) -> Iterator[None]:
    """Of several starts on this server, one after the other: each must see which GPUs the one before it was given."""
    path = os.path.join(prefix, "var", "lease", f"gpus-{socket.gethostname()}.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    mine = holder_of({"run": os.urandom(8).hex(), "pid": os.getpid(), "started": started_at(os.getpid())})
    until = time.monotonic() + LOCK_TIMEOUT
    dead: Holder = {}
    while other := acquire(path, mine, dead=dead):
        # Left by a start that was killed in the half second that this takes, perhaps before a restart of the server.
        works = is_here(other) and started_at(int(other.get("pid", 0))) == other.get("started")
        dead = {} if works or not other.get("run") else other
        if time.monotonic() > until:
            raise StackError(f"Another start has been picking GPUs for {LOCK_TIMEOUT:.0f} s. Run it again.")
        time.sleep(0.1)
    try:
        yield
    finally:
        release(path)


# --- Start and stop ---------------------------------------------------------------------------------------------------


def claim(folder: str, host: str) -> Holder:
    """Take a run's lease for this process; returns its data. Raises StackError, naming who has it."""
    working, holder = alive(folder)
    if working:
        raise StackError(f"It is running already: on {described_run(holder)}.")
    run = os.urandom(8).hex()
    mine = holder_of({"run": run, "host": host})
    mine.update(starter=os.getpid(), starter_started=started_at(os.getpid()))
    other = acquire(os.path.join(folder, LEASE), mine, dead=holder)
    if other:
        raise StackError(f"It was started a moment ago by another run: {described(other)}.")
    return mine


def spawn(folder: str, holder: Holder, environment: Mapping[str, str]) -> None:
    """Start the supervisor of a run whose lease `holder` has; returns once run.sh has been started."""
    lease = os.path.join(folder, LEASE)
    with open(os.path.join(folder, "supervisor.txt"), "ab") as said:
        supervisor = subprocess.Popen(
            [sys.executable, "-I", os.path.join(folder, "supervise_run.py"), lease, holder["run"]],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    until = time.monotonic() + 60
    while read_json(os.path.join(folder, "process.json")).get("run") != holder["run"]:
        if supervisor.poll() is not None or time.monotonic() > until:
            release(lease)
            with open(said.name, encoding="utf-8", errors="replace") as stream:
                raise StackError(f"Its supervisor did not start: {stream.read()[-500:].strip() or 'it says nothing'}")
        time.sleep(0.05)


def log_event(folder: str, event: dict[str, Any]) -> None:
    """Append a line to events.jsonl."""
    with open(os.path.join(folder, "events.jsonl"), "a", encoding="utf-8") as events:
        events.write(json.dumps({**event, "when": int(time.time())}, sort_keys=True) + "\n")


def stop(folder: str, seconds: float) -> dict[str, Any]:
    """Stop a run of this server and wait for its end; returns `state_of`. Raises StackError when it does not end."""
    process = read_json(os.path.join(folder, "process.json"))
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(process["pid"]), signal.SIGTERM)
    until = time.monotonic() + seconds
    while alive(folder)[0]:
        if time.monotonic() > until:
            raise StackError(
                f"It did not end within {seconds:.0f} s: process {process['pid']} hangs, in a driver or a file server."
            )
        time.sleep(0.2)
    return state_of(folder)


def refuse_unless_new_or_resumed(state: dict[str, Any], name: str, resume: bool, replace: bool = False) -> None:
    """Raise StackError where a start would run over what an earlier one left, or has nothing to do."""
    if state["state"] == "running":
        raise StackError(
            f"Experiment {name} is running already: on {state['where']}. Look with playbooks/train_status.yml, stop it "
            f"with playbooks/train_stop.yml -e train_only={name}, or give the new one another name."
        )
    if replace:
        return
    if state.get("final") and not resume:
        raise StackError(
            f"Experiment {name} is finished: its final model is written. Give the new one another name; with "
            "-e train_resume=true it is tested again."
        )
    if state["state"] and not resume:
        last = f"a checkpoint of iteration {state['checkpoint']}" if state["checkpoint"] >= 0 else "no checkpoint"
        raise StackError(
            f"Experiment {name} was started before, {state['state']}, and has left {last}. Go on from there with "
            "-e train_resume=true, or give the new one another name."
        )
    if resume and not state["state"]:
        raise StackError(
            f"Experiment {name} cannot be resumed: it was never started here. Start it without train_resume."
        )


def clear(folder: str, keep: Iterable[str] = ()) -> None:
    """Remove all that earlier starts left, but for the lease of this one, and what is to be kept."""
    for name in set(os.listdir(folder)) - {LEASE, *keep}:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def write_files(folder: str, files: Mapping[str, str]) -> None:
    """Write text files into a run's folder, each by rename."""
    for name, text in files.items():
        path = os.path.join(folder, name)
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(f"{path}.new", path)


def remember(folder: str, facts: dict[str, Any]) -> None:
    """Write experiment.json."""
    write_json(os.path.join(folder, "experiment.json"), facts)
