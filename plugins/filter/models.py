"""Filters of role infer: which model is used on what, the runs that do it, and what they found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils import detectron_config as configs  # noqa: E402
from ansible.module_utils.coco_check import fingerprints  # noqa: E402
from ansible.module_utils.coco_datasets import other_classes, unfit  # noqa: E402
from ansible.module_utils.experiment_runs import NAME  # noqa: E402
from ansible.module_utils.experiment_start import found_here, gpu_problems, run_script  # noqa: E402
from ansible.module_utils.image_folder import look, shares  # noqa: E402
from ansible.module_utils.stack_fetch import without_secrets  # noqa: E402
from ansible.module_utils.stack_installs import StackError  # noqa: E402

Asked = Mapping[str, Any]

COCO_CLASSES = 81
LISTED = 60  # images that are listed at the end
ON_THE_CPU = "Without one: -e infer_device=cpu, which is slow."
PLAYBOOKS = {"inference": "infer", "evaluation": "evaluate"}


def _names(text: str) -> list[str]:
    return [name.strip() for name in str(text).split(",") if name.strip()]


def model_problems(asked: Asked, kind: str) -> list[str]:
    """All that is wrong with the variables of role infer for an inference or an evaluation, a sentence each.

    asked: the variables without infer_.
    """
    problems = []
    if bool(asked["experiment"]) == bool(asked["config"]):
        problems.append(
            "Name the model: -e infer_experiment=NAME takes that of an experiment; infer_config and infer_weights take "
            "another. One of both, please."
        )
    weights = [f"infer_{key}" for key in ("weights", "weights_on_server") if asked[key]]
    if len(weights) == 2:
        problems.append(f"{' and '.join(weights)} both name weights: give one of them.")
    if asked["config"] and not asked["experiment"] and not weights:
        problems.append(
            "infer_config needs its weights: infer_weights (a file of this machine, or an address) or "
            "infer_weights_on_server."
        )
    if asked["weights_on_server"] and not asked["weights_on_server"].startswith(("/", "~")):
        problems.append(f"infer_weights_on_server is {asked['weights_on_server']}: give a full path.")
    if kind == "inference":
        images = [f"infer_{key}" for key in ("images", "images_on_server") if asked[key]]
        if len(images) != 1:
            problems.append(
                "Name the images: infer_images is a file or folder of this machine, infer_images_on_server a full path "
                "on the servers. One of both, please."
            )
        if asked["images_on_server"] and not asked["images_on_server"].startswith(("/", "~")):
            problems.append(f"infer_images_on_server is {asked['images_on_server']}: give a full path.")
        if not 0 <= float(asked["threshold"]) <= 1:
            problems.append(f"infer_threshold is {asked['threshold']}: a score is between 0 and 1.")
    if int(asked["gpus"]) < 1:
        problems.append(
            f"infer_gpus is {asked['gpus']}: it is a number from 1 on; infer_device=cpu runs without a GPU."
        )
    if asked["device"] not in ("gpu", "cpu"):
        problems.append(f"infer_device is {asked['device']}: it is gpu or cpu.")
    if (asked["name"] or not problems) and not NAME.fullmatch(run_name(asked, kind)):
        problems.append(
            f"{run_name(asked, kind)!r} cannot be the name of a run: it names a folder. Give infer_name letters, "
            "digits and ._+- (at most 100)."
        )
    return problems


def run_name(asked: Asked, kind: str, server: str = "", servers: int = 1) -> str:
    """Name of the run. Where several servers share the images they may share a home, too: each has a run of its own."""
    of = str(asked["experiment"] or Path(str(asked["config"])).name.removesuffix(".yaml"))
    name = asked["name"] or f"{of}.{kind}"
    return f"{name}.{server}" if servers > 1 else str(name)


def model_configs(asked: Asked, run: str, prefix: str) -> dict[str, dict[str, str]]:
    """What module experiment_info is to read: the model's config."""
    if asked["experiment"]:
        path = f"{prefix}/runs/{asked['experiment']}/config.yaml"
        return {run: {"config": path}, asked["experiment"]: {"config": path}}
    return {run: {"config": asked["config"]}}


def images_here(path: str) -> dict[str, Any]:
    """The images of a file or folder of the controller: folder, images, left_out; or problem, a sentence."""
    try:
        found: dict[str, Any] = look(str(path))
        return found
    except StackError as error:
        return {"problem": str(error)}


def image_shares(listed: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """Which server takes which images."""
    taken: dict[str, list[Any]] = shares({str(server): list(images) for server, images in listed.items()})
    return taken


# --- What is started --------------------------------------------------------------------------------------------------


def model_plan(asked: Asked, look_up: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The run that uses a model, and why it is refused.

    look_up: what module experiment_info returned. settings: kind, run, prefix, stack, generation, ladder, configs (a
    folder of a person's own), weights (the file on the server; empty where that is not known yet), md5. Returns run,
    folder, weights (the model's file where it is an experiment's), files, facts, gpus, lines (for a person), refusals.
    """
    kind, run, prefix = settings["kind"], settings["run"], settings["prefix"]
    plain: dict[str, Any] = json.loads(json.dumps(dict(asked)))  # of Python's own types, where Ansible's are not
    found = look_up["experiments"][run]
    plan: dict[str, Any] = {
        "name": run,
        "run": run,
        "folder": f"{prefix}/runs/{run}",
        "playbook": PLAYBOOKS[kind],
        "generation": settings["generation"]["path"],
        "workspace": "",
        "device": plain["device"],
        "gpus": 0 if plain["device"] == "cpu" else plain["gpus"] if kind == "evaluation" else 1,
        "weights": "",
        "files": {},
        "facts": {},
        "lines": [],
        "refusals": [],
    }
    refusals: list[str] = plan["refusals"]
    trained = look_up["experiments"].get(plain["experiment"], {}) if plain["experiment"] else {}
    if trained:
        own = not (plain["weights"] or plain["weights_on_server"])
        refusals += _of_the_experiment(plan, plain["experiment"], trained, prefix, own)
    refusals += _of_the_name(run, found, kind)
    if plan["device"] == "gpu":
        refusals += [f"{run}: {problem}" for problem in gpu_problems(plan["gpus"], settings["ladder"], ON_THE_CPU)]
    source, text = found_here(plain["config"], settings["configs"], found["config"]) if not trained else ("", "")
    if trained:
        source, text = trained["config"]["path"], trained["config"]["text"]
    if not text:
        if not refusals:
            refusals.append(
                f"There is no config {plain['config']}: neither {settings['configs']}/{plain['config']}.yaml here, nor "
                "below configs/ of Detectron on the server."
            )
        return plan
    # Where an address or a file of this machine is not on the server yet, its own name is shown.
    weights = settings["weights"] or without_secrets(plain["weights"]) or plan["weights"]
    try:
        _fill(plan, plain, source, text, weights, trained.get("facts", {}).get("config", ""), look_up, settings)
    except configs.ConfigError as error:
        refusals.append(f"{run}: {source}: {error}")
    return plan


def _of_the_experiment(
    plan: dict[str, Any], name: str, trained: Mapping[str, Any], prefix: str, own: bool
) -> list[str]:
    """Take the model of an experiment, with its own weights or others; returns why it cannot be had."""
    state, facts = trained["state"], trained["facts"]
    if not state["state"]:
        return [f"There is no experiment {name} on this server: {prefix}/runs/{name} is not there. Name another."]
    if facts.get("kind", "training") != "training":
        return [f"{name} is a run of kind {facts['kind']} and has no model: name the experiment that was trained."]
    workspace = facts.get("asked", {}).get("workspace")
    if workspace:
        plan.update(workspace=f"{prefix}/work/{workspace}", generation=facts["generation"])
    if not own:
        plan["lines"].append(f"The model is that of {name}, with other weights")
        return []
    if not state["model"]:
        return [f"Experiment {name} ({state['state']}) has written no model yet, nor a checkpoint."]
    plan["weights"] = state["model"]
    which = "its final model" if state["final"] else f"its checkpoint of iteration {state['checkpoint']}"
    plan["lines"].append(f"The model is that of {name}: {which}")
    return []


def _of_the_name(run: str, found: Mapping[str, Any], kind: str) -> list[str]:
    """Why a run cannot have its name: an earlier one of the same kind is replaced, nothing else is."""
    state, was = found["state"], found["facts"].get("kind", "training")
    if state["state"] == "running":
        return [
            f"{run} is running already: on {state['where']}. Wait for it with -e infer_start=false, stop it with "
            f"playbooks/train_stop.yml -e train_only={run}, or give this one another infer_name."
        ]
    if state["state"] and was != kind:
        return [f"{run} is the name of a {was} on this server, which stays as it is: give this one another infer_name."]
    return []


def _fill(
    plan: dict[str, Any],
    asked: dict[str, Any],
    source: str,
    text: str,
    weights: str,
    trained_by: str,
    look_up: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """A plan's files, facts and lines, and what is refused of the model and its datasets. Raises ConfigError.

    source, text: of the config; trained_by: where an experiment had its config from.
    """
    run, folder, kind, refusals = plan["run"], plan["folder"], settings["kind"], plan["refusals"]
    named = _names(asked["datasets"])
    config = configs.for_testing(
        text,
        weights or f"{folder}/model.pkl",
        folder,
        asked["gpus"] if kind == "evaluation" else 1,
        test=named if kind == "evaluation" else (),
        options={"DOWNLOAD_CACHE": f"{settings['prefix']}/var/cache/detectron", **asked["options"]},
    )
    trained_on = list(configs.option(configs.parse(text), "TRAIN.DATASETS"))
    used = list(configs.option(config, "TEST.DATASETS")) if kind == "evaluation" else []
    classes = configs.option(config, "MODEL.NUM_CLASSES")
    exports: dict[str, Any] = {}
    files: dict[str, str] = {}
    if kind == "evaluation":
        refusals += _dataset_refusals(run, config, used, trained_on, classes, look_up)
        multi = ["--multi-gpu-testing"] if asked["gpus"] > 1 else []
        plan["command"] = ["python2", "@TOOLS@/test_net.py", *multi, "--cfg", f"{folder}/config.yaml"]
    else:
        if why := configs.cannot_infer(config):
            refusals.append(f"{run}: {why}")
        names, note = _class_names(named or trained_on, bool(named), classes, look_up)
        refusals += [f"{run}: {note}"] if note and not names and named else []
        plan["lines"] += [note] if note and not named else []
        if names:
            files["classes.json"] = json.dumps(["__background__", *names]) + "\n"
            exports["DETECTRON_CLASSES"] = f"{folder}/classes.json"
        exports |= {"DETECTRON_RESULTS": folder, "DETECTRON_THRESHOLD": float(asked["threshold"])}
        tool = ["python2", "@TOOLS@/infer_simple.py", "--cfg", f"{folder}/config.yaml", "--wts", weights]
        plan["command"] = [*tool, "--output-dir", f"{folder}/pictures", "--image-ext", "*", f"{folder}/images"]
    before = configs.parse(text)
    differences = [str(difference) for difference in configs.differences(before, config)]
    plan["lines"] += [f"{run}: {source}, on {'the CPU' if plan['device'] == 'cpu' else 'a GPU'}"]
    plan["lines"] += [f"  {difference}" for difference in differences]
    known = {"sha256": settings["sha256"]} if settings.get("sha256") else {}
    known |= {"md5": settings["md5"]} if settings.get("md5") else {}
    plan["facts"] = {
        "asked": {**asked, "weights": without_secrets(asked["weights"])},
        "kind": kind,
        "of": asked["experiment"],
        "config": trained_by or source,
        "differences": differences,
        "datasets": fingerprints(used, look_up["reports"]),
        "weights": {"path": weights, **known},
        "device": plan["device"],
        "stack": settings["stack"],
        "generation": plan["generation"],
        "detectron": {"path": f"{plan['workspace']}/detectron"} if plan["workspace"] else look_up["detectron"],
    }
    entries = {name: look_up["datasets"].get(name) for name in used if name in look_up["datasets"]}
    plan["exports"] = exports
    plan["files"] = {
        **files,
        "config.yaml": configs.render(config, f"Derived from {source} by playbooks/{plan['playbook']}.yml."),
        "baseline.yaml": text,
        "datasets.json": json.dumps(entries, indent=1, sort_keys=True) + "\n",
        "run.sh": run_script(plan),
    }


def _class_names(
    datasets: list[str], asked_for: bool, classes: int, look_up: Mapping[str, Any]
) -> tuple[list[str], str]:
    """(names of a model's classes, a note). No names: those of COCO, which Detectron's tool has itself."""
    reports = look_up["reports"]
    known = next((name for name in datasets if reports.get(name, {}).get("class_names")), "")
    if known:
        names = list(reports[known]["class_names"])
        if len(names) + 1 == classes:
            return names, ""
        why = f"{known} has {len(names)} categories, and the model {classes - 1} and the background."
        if asked_for:
            return [], f"{why} Name the dataset that it was trained on."
        return [f"class {number}" for number in range(1, classes)], f"{why} Its classes are shown by number."
    if asked_for:
        return [], f"nobody has said where {', '.join(datasets)} is on this server. Known are: {_known(look_up)}."
    if classes == COCO_CLASSES:
        return [], ""
    numbers = [f"class {number}" for number in range(1, classes)]
    return numbers, (
        "The names of the model's classes are not known here, and are shown by number: -e infer_datasets=NAME names "
        "the dataset that it was trained on."
    )


def _known(look_up: Mapping[str, Any]) -> str:
    return ", ".join(look_up["datasets"]) or "none"


def _dataset_refusals(
    run: str,
    config: dict[str, Any],
    used: list[str],
    trained_on: list[str],
    classes: int,
    look_up: Mapping[str, Any],
) -> list[str]:
    """Why a model cannot be evaluated on datasets, which Detectron would say after all of the testing, if at all."""
    refusals = []
    masks, keypoints = (bool(configs.option(config, f"MODEL.{key}")) for key in ("MASK_ON", "KEYPOINTS_ON"))
    if not used:
        refusals.append(f"{run}: its config names no TEST.DATASETS: name some with -e infer_datasets=NAME,…")
    for name in used:
        if name not in {**look_up["datasets"], **look_up["reports"]}:
            refusals.append(
                f"{run}: nobody has said where {name} is on this server. Set coco_path, or name it in coco_datasets, "
                f"and run site.yml --tags coco. Known are: {_known(look_up)}."
            )
            continue
        if "test" in name:
            refusals.append(
                f"{run}: Detectron evaluates no dataset whose name has 'test' in it, such as {name}: it would write "
                "detections, and no AP. Give it another name in coco_datasets."
            )
        if keypoints and not name.startswith("keypoints_coco_"):
            refusals.append(
                f"{run}: Detectron evaluates keypoints only on a dataset whose name begins with keypoints_coco_, and "
                f"this one is {name}: give it such a name in coco_datasets."
            )
        if why := unfit(name, look_up, masks, keypoints, True):
            refusals.append(f"{run} cannot use {name} on this server: {why}")
        has = look_up["reports"].get(name, {}).get("classes")
        if has and has != classes:
            refusals.append(
                f"{run}: {name} has {has - 1} categories, and the model {classes - 1} and the background: it was "
                "trained on another dataset."
            )
    if other := other_classes([*trained_on, *used], look_up):
        refusals.append(f"{run}: the dataset does not have the model's categories in the same order: {other}.")
    if not configs.option(config, "TEST.FORCE_JSON_DATASET_EVAL") and (
        without := [name for name in used if configs.without_evaluator(config, name)]
    ):
        refusals.append(
            f"{run}: Detectron has no evaluator for a dataset called {without[0]}: leave TEST.FORCE_JSON_DATASET_EVAL "
            "out of infer_options, and it is set."
        )
    return refusals


# --- What came of it --------------------------------------------------------------------------------------------------


def inference_lines(results: Mapping[str, Any], where: str, brought: str) -> list[str]:
    """The images of an inference with time and detections, for a person. where: a server; brought: a folder."""
    images = sorted(results.get("images", []), key=lambda image: str(image["image"]))
    unreadable = [f"  {name}  is damaged, or no image that OpenCV knows" for name in results.get("unreadable", [])]
    if not images:
        return [f"{where}: no image was done.", *unreadable]
    seconds = sorted(image["seconds"] for image in images)
    median = seconds[len(seconds) // 2]
    empty = sum(not image["detections"] for image in images)
    count = f"{len(images)} {'image' if len(images) == 1 else 'images'}"
    lines = [f"{where}: {count}, {median:.2f} s each (median), in {brought}"]
    width = max(len(image["image"]) for image in images[:LISTED])
    for image in images[:LISTED]:
        number = image["detections"]
        found = (
            f"{number} {'detection' if number == 1 else 'detections'}: {', '.join(image['pictures'])}"
            if number
            else f"no detection with a score of {results['threshold']:g} or more"
        )
        lines.append(f"  {image['image']:<{width}}  {image['seconds']:8.2f} s  {found}")
    if len(images) > LISTED:
        lines.append(f"  … and {len(images) - LISTED} more: results.json there has all.")
    lines += unreadable
    if empty:
        lines.append(
            f"  {empty} without a detection have no picture. A lower score shows more: -e infer_threshold=0.3"
            if empty > 1
            else "  One without a detection has no picture. A lower score shows more: -e infer_threshold=0.3"
        )
    return lines


def evaluation_lines(results: Mapping[str, Any]) -> list[str]:
    """Tables of average precision, for a person. results: {dataset: {task: {metric: number}}}."""
    lines = []
    for dataset, tasks in results.items():
        metrics = list(dict.fromkeys(metric for task in tasks.values() for metric in task))
        width = max(len(str(task)) for task in ["task", *tasks])
        lines.append(f"{dataset}")
        lines.append("  " + "  ".join([f"{'task':<{width}}", *(f"{metric:>6}" for metric in metrics)]))
        for task, numbers in tasks.items():
            cells = [_percent(numbers.get(metric)) for metric in metrics]
            lines.append("  " + "  ".join([f"{task:<{width}}", *(f"{cell:>6}" for cell in cells)]))
    return [*lines, "  (in percent, as papers have it)"] if lines else []


def _percent(value: float | None) -> str:
    """An average precision; Detectron says -1 where there was nothing to find."""
    if value is None or not math.isfinite(value) or value < 0:
        return "-"
    return f"{100 * value:.1f}"


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        return {
            "evaluation_lines": evaluation_lines,
            "image_shares": image_shares,
            "images_here": images_here,
            "inference_lines": inference_lines,
            "model_configs": model_configs,
            "model_plan": model_plan,
            "model_problems": model_problems,
            "model_run_name": run_name,
        }
