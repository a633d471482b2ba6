"""Filters of role train: experiments as they are asked for, what they are made of, and what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils import detectron_config as configs  # noqa: E402
from ansible.module_utils.coco_check import fingerprints  # noqa: E402
from ansible.module_utils.coco_datasets import other_classes, unfit  # noqa: E402
from ansible.module_utils.experiment_runs import refuse_unless_new_or_resumed  # noqa: E402
from ansible.module_utils.experiment_start import found_here, gpu_problems, run_script  # noqa: E402
from ansible.module_utils.stack_installs import StackError  # noqa: E402
from ansible.module_utils.training_status import experiment_lines  # noqa: E402

Experiment = dict[str, Any]

# What to do where no GPU works.
REHEARSE_OR_TRAIN = (
    "Rehearse on its CPU with -e train_rehearsal=true, train there slowly with device: cpu, or take a server with a "
    "GPU that does."
)


def _is_number(value: Any) -> bool:
    """Ansible's numbers and texts are subclasses of Python's; Python's booleans are numbers."""
    return isinstance(value, int) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# All that an experiment may say: its default, whether a value can be, and what it must be.
FIELDS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "config": ("", lambda value: isinstance(value, str), "a text"),
    "gpus": (1, lambda value: _is_number(value) and value > 0, "a number from 1 on"),
    "gpu_ids": ([], lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of numbers"),
    "train": ([], _are_names, "a list of names"),
    "test": ([], _are_names, "a list of names"),
    "weights": ("", lambda value: isinstance(value, str), "a text"),
    "options": ({}, lambda value: isinstance(value, dict), "names and values"),
    "workspace": ("", lambda value: isinstance(value, str), "a text"),
    "multi_gpu_testing": (False, lambda value: isinstance(value, bool), "true or false"),
    "unscaled": (False, lambda value: isinstance(value, bool), "true or false"),
    "device": ("gpu", lambda value: value in ("gpu", "cpu"), "gpu or cpu"),
}


def experiment_problems(given: Any, only: str = "") -> list[str]:
    """All that is wrong with train_experiments and train_only, a sentence each."""
    if not isinstance(given, dict):
        return ["train_experiments must be experiments by name: see docs/training.md for an example."]
    problems = [
        f"train_only names {name}, and train_experiments has {', '.join(given) or 'none'}."
        for name in _chosen(only)
        if name not in given
    ]
    if not given:
        problems.append("train_experiments has no experiment: see docs/training.md for an example.")
    for name in [name for name in _chosen(only) or given if name in given]:
        said = given[name]
        if not isinstance(said, dict):
            problems.append(f"{name} must have fields, at least config.")
            continue
        problems += [
            f"{name} has a field {key}, which no experiment has. Known are: {', '.join(FIELDS)}."
            for key in said
            if key not in FIELDS
        ]
        problems += [
            f"{key} of {name} is {said[key]!r} and must be {must}."
            for key, (_default, can_be, must) in FIELDS.items()
            if key in said and not can_be(said[key])
        ]
        if not said.get("config"):
            problems.append(f"{name} names no config, for example config: e2e_mask_rcnn_R-50-FPN_1x.")
    return problems


def _chosen(only: str) -> list[str]:
    return [name.strip() for name in str(only).split(",") if name.strip()]


def experiments_wanted(given: Mapping[str, Experiment], only: str = "") -> dict[str, Experiment]:
    """The experiments that are meant, which have no problems, with all their fields."""
    plain: dict[str, Experiment] = json.loads(json.dumps(given))  # of Python's own types, where Ansible's are not
    return {
        name: {key: plain[name].get(key, default) for key, (default, _can_be, _must) in FIELDS.items()}
        for name in _chosen(only) or plain
    }


def run_of(name: str, rehearsal: bool) -> str:
    """The folder in runs/ of an experiment, or of its rehearsal."""
    return f"{name}.rehearsal" if rehearsal else name


def experiment_configs(wanted: Mapping[str, Experiment], rehearsal: bool = False) -> dict[str, dict[str, str]]:
    """What module experiment_info is to read for each."""
    return {
        run_of(name, rehearsal): {"config": asked["config"], "workspace": asked["workspace"]}
        for name, asked in wanted.items()
    }


def experiment_plans(
    wanted: Mapping[str, Experiment], look: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What is to be started for each experiment, and why it is refused.

    look: what module experiment_info returned. settings: prefix, stack, generation, ladder (of this server), configs (a
    folder of a person's own), rehearsal, resume. Of each plan: name, run (its folder in runs/), config (YAML), files,
    facts, gpus, gpu_ids, resume, lines (for a person), refusals (sentences; empty where it may be started).
    """
    return [_plan(name, asked, look, settings) for name, asked in wanted.items()]


def _plan(name: str, asked: Experiment, look: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    rehearsal, prefix = settings["rehearsal"], settings["prefix"]
    run = run_of(name, rehearsal)
    found = look["experiments"][run]
    device = "cpu" if rehearsal else asked["device"]
    plan: dict[str, Any] = {
        "name": name,
        "run": run,
        "folder": f"{prefix}/runs/{run}",
        "generation": settings["generation"]["path"],
        "workspace": f"{prefix}/work/{asked['workspace']}" if asked["workspace"] else "",
        "device": device,
        "gpus": asked["gpus"] if device == "gpu" else 0,
        "gpu_ids": asked["gpu_ids"] if device == "gpu" else [],
        "resume": settings["resume"] and not rehearsal,
        "replace": rehearsal,
        "files": {},
        "facts": {},
        "lines": [],
        "refusals": [],
    }
    refusals: list[str] = plan["refusals"]
    if asked["workspace"] and not found["workspace"]:
        refusals.append(
            f"{name}: there is no workspace {asked['workspace']} on this server. Make it: ansible-playbook "
            f"playbooks/workspace.yml -e workspace_name={asked['workspace']}"
        )
        return plan
    # A workspace goes on with the generation that it was built with.
    plan["generation"] = found["workspace"].get("generation", plan["generation"])
    source, text = found_here(asked["config"], settings["configs"], found["config"])
    if not text:
        refusals.append(
            f"{name}: there is no config {asked['config']}: neither {settings['configs']}/{asked['config']}.yaml here, "
            f"nor below configs/ of {plan['workspace'] or 'Detectron'} on the server."
        )
        return plan
    try:
        _derive(plan, asked, text, source, look, found, settings)
    except configs.ConfigError as error:
        refusals.append(f"{name}: {source}: {error}")
        return plan
    if not rehearsal:
        try:
            refuse_unless_new_or_resumed(found["state"], name, plan["resume"])
        except StackError as error:
            refusals.append(str(error))
        if device == "gpu":
            refusals += [
                f"{name}: {problem}" for problem in gpu_problems(asked["gpus"], settings["ladder"], REHEARSE_OR_TRAIN)
            ]
    return plan


def _derive(
    plan: dict[str, Any],
    asked: Experiment,
    text: str,
    source: str,
    look: Mapping[str, Any],
    found: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Fill a plan's files, facts and lines, and refuse what the rule or the datasets forbid. Raises ConfigError."""
    name, folder, refusals = plan["name"], plan["folder"], plan["refusals"]
    before = configs.parse(text)
    baseline = configs.parse(found["baseline"]["text"]) if found["baseline"]["text"] else None
    trained = tuple(asked["train"]) or configs.option(before, "TRAIN.DATASETS")
    tested = tuple(asked["test"]) or configs.option(before, "TEST.DATASETS")
    used = list(dict.fromkeys([*trained, *tested]))
    unknown = [dataset for dataset in used if dataset not in {**look["datasets"], **look["reports"]}]
    if unknown:
        refusals.append(
            f"{name}: nobody has said where {', '.join(unknown)} is on this server. Set coco_path, or name it in "
            f"coco_datasets, and run site.yml --tags coco. Known are: {', '.join(look['datasets']) or 'none'}."
        )
    classes = {look["reports"][dataset].get("classes") for dataset in trained if dataset in look["reports"]} - {None}
    if len(classes) > 1:
        refusals.append(f"{name}: its training datasets have different numbers of categories: {', '.join(trained)}.")
    elif other := other_classes(used, look):
        refusals.append(f"{name}: its datasets do not have the same categories in the same order: {other}.")
    config = configs.derive(
        text,
        asked["gpus"],
        train=asked["train"],
        test=asked["test"],
        categories=classes.pop() - 1 if len(classes) == 1 else None,
        weights={"": None, "random": ""}.get(asked["weights"], asked["weights"]),
        output=folder,
        options={"DOWNLOAD_CACHE": f"{settings['prefix']}/var/cache/detectron", **asked["options"]},
    )
    masks, keypoints = (bool(configs.option(config, f"MODEL.{key}")) for key in ("MASK_ON", "KEYPOINTS_ON"))
    for dataset in used:
        if why := unfit(dataset, look, masks, keypoints, dataset in tested):
            refusals.append(f"{name} cannot use {dataset} on this server: {why}")
    scaled = baseline if baseline and source != found["baseline"]["path"] else before
    problem = configs.unscaled(config, scaled, asked["options"])
    if problem is None and scaled is before and baseline is None:
        problem = configs.unscaled(config, None, asked["options"])
    if problem and not asked["unscaled"]:
        refusals.append(f"{name}: {problem} To train like that nevertheless, say unscaled: true in the experiment.")
    if plan["resume"] and found.get("ran"):
        conflicts = configs.resume_conflicts(configs.parse(found["ran"]), config)
        refusals += [
            f"{name} cannot go on with its checkpoint: {conflict}. Give the experiment another name, or put back what "
            "it was."
            for conflict in conflicts
        ]
    differences = [str(difference) for difference in configs.differences(before, config)]
    plan["lines"] = [
        f"{plan['run']}: {source}, for {asked['gpus']} {'GPU' if asked['gpus'] == 1 else 'GPUs'}",
        *(f"  {difference}" for difference in differences),
        *(f"  Note: {note}" for note in configs.notes(config, before)),
        *([f"  Unscaled, as told: {problem}"] if problem and asked["unscaled"] else []),
    ]
    plan["facts"] = {
        "asked": dict(asked),
        "kind": "rehearsal" if settings["rehearsal"] else "training",
        "rehearsal": settings["rehearsal"],
        "config": source,
        "differences": differences,
        "schedule": {
            key: configs.option(config, key)
            for key in ("NUM_GPUS", "TRAIN.IMS_PER_BATCH", "SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.STEPS")
        },
        "datasets": fingerprints(used, look["reports"]),
        "weights": {"path": configs.option(config, "TRAIN.WEIGHTS")},
        "device": plan["device"],
        "stack": settings["stack"],
        "generation": plan["generation"],
        "detectron": {"path": f"{plan['workspace']}/detectron", "commit": found["workspace"].get("commit", "")}
        if plan["workspace"]
        else look["detectron"],
    }
    plan["command"] = _command(plan, asked)
    plan["files"] = {
        "config.yaml": configs.render(config, f"Derived from {source} by playbooks/train.yml."),
        "baseline.yaml": text,
        "datasets.json": json.dumps({key: look["datasets"].get(key) for key in used}, indent=1, sort_keys=True) + "\n",
        "run.sh": run_script(plan),
    }


def _command(plan: Mapping[str, Any], asked: Experiment) -> list[str]:
    """The words of the command; @TOOLS@ is the folder of Detectron's tools."""
    folder = plan["folder"]
    if plan["replace"]:
        return ["python2", "@TOOLS@/rehearse.py", folder]
    multi = ["--multi-gpu-testing"] if asked["multi_gpu_testing"] else []
    return ["python2", "@TOOLS@/train_net.py", *multi, "--cfg", f"{folder}/config.yaml"]


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "experiment_configs": experiment_configs,
            "experiment_lines": experiment_lines,
            "experiment_plans": experiment_plans,
            "experiment_problems": experiment_problems,
            "experiments_wanted": experiments_wanted,
        }
