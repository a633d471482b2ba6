"""Detectron's configs: derived for other numbers of GPUs and other datasets, compared, and judged.

The linear scaling rule: with k = GPUs x TRAIN.IMS_PER_BATCH / (the same product of the original), learning rates are
multiplied by k, iterations divided by it, so that the same images are seen at the same rate per image. Warm-up is not
scaled. TRAIN.SNAPSHOT_ITERS neither: Detectron divides it by NUM_GPUS itself.

Configs are dicts as YAML gives them: {"NUM_GPUS": 8, "SOLVER": {"BASE_LR": 0.02, ...}, "TRAIN": {...}}. Strings in them
that hold a Python literal, as in `DATASETS: ('coco_2014_train',)`, are what Detectron takes them for: see `decode`.

Python >= 3.9, PyYAML, nothing of Ansible.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import yaml

Config = dict[str, Any]

# What Detectron takes where a config is silent (detectron/core/config.py), of the options that are read here.
DEFAULTS: Mapping[str, Any] = {
    "NUM_GPUS": 1,
    "OUTPUT_DIR": "/tmp",
    "MODEL.TYPE": "",
    "MODEL.CONV_BODY": "",
    "MODEL.NUM_CLASSES": -1,
    "MODEL.FASTER_RCNN": False,
    "MODEL.RPN_ONLY": False,
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINTS_ON": False,
    "RETINANET.RETINANET_ON": False,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.LR_POLICY": "step",
    "SOLVER.GAMMA": 0.1,
    "SOLVER.STEP_SIZE": 30000,
    "SOLVER.STEPS": [],
    "SOLVER.LRS": [],
    "SOLVER.MAX_ITER": 40000,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.WEIGHT_DECAY": 0.0005,
    "SOLVER.WARM_UP_ITERS": 500,
    "SOLVER.WARM_UP_FACTOR": 1.0 / 3.0,
    "SOLVER.WARM_UP_METHOD": "linear",
    "TRAIN.WEIGHTS": "",
    "TRAIN.DATASETS": (),
    "TRAIN.PROPOSAL_FILES": (),
    "TRAIN.IMS_PER_BATCH": 2,
    "TRAIN.SNAPSHOT_ITERS": 80000,
    "TRAIN.AUTO_RESUME": True,
    "TEST.DATASETS": (),
    "TEST.WEIGHTS": "",
    "TEST.PROPOSAL_FILES": (),
    "TEST.FORCE_JSON_DATASET_EVAL": False,
}
# fmt: off
SECTIONS = frozenset((
    "MODEL", "TRAIN", "DATA_LOADER", "TEST", "RETINANET", "SOLVER", "FAST_RCNN", "RPN", "FPN", "MRCNN", "KRCNN",
    "RFCN", "RESNETS", "GROUP_NORM", "CLUSTER",
))
OUTSIDE_SECTIONS = frozenset((
    "NUM_GPUS", "USE_NCCL", "DEDUP_BOXES", "BBOX_XFORM_CLIP", "PIXEL_MEANS", "RNG_SEED", "EPS", "ROOT_DIR",
    "OUTPUT_DIR", "MATLAB", "VIS", "VIS_TH", "EXPECTED_RESULTS", "EXPECTED_RESULTS_RTOL",
    "EXPECTED_RESULTS_ATOL", "EXPECTED_RESULTS_SIGMA_TOL", "EXPECTED_RESULTS_EMAIL", "DOWNLOAD_CACHE",
    "MEMONGER", "MEMONGER_SHARE_ACTIVATIONS",
))
# Besides those of DEFAULTS, the options that are no whole numbers: Detectron refuses 1 where it has 0.5.
FLOATS = frozenset((
    "BBOX_XFORM_CLIP", "DEDUP_BOXES", "EPS", "EXPECTED_RESULTS_ATOL", "EXPECTED_RESULTS_RTOL",
    "GROUP_NORM.EPSILON", "KRCNN.LOSS_WEIGHT", "MRCNN.THRESH_BINARIZE", "MRCNN.WEIGHT_LOSS_MASK",
    "RETINANET.BBOX_REG_BETA", "RETINANET.BBOX_REG_WEIGHT", "RETINANET.INFERENCE_TH", "RETINANET.LOSS_ALPHA",
    "RETINANET.LOSS_GAMMA", "RETINANET.NEGATIVE_OVERLAP", "RETINANET.POSITIVE_OVERLAP", "RETINANET.PRIOR_PROB",
    "SOLVER.LOG_LR_CHANGE_THRESHOLD", "SOLVER.SCALE_MOMENTUM_THRESHOLD", "SOLVER.WEIGHT_DECAY_GN",
    "TEST.BBOX_VOTE.SCORING_METHOD_BETA", "TEST.BBOX_VOTE.VOTE_TH", "TEST.NMS", "TEST.RPN_NMS_THRESH",
    "TEST.SCORE_THRESH", "TEST.SOFT_NMS.SIGMA", "TRAIN.BBOX_THRESH", "TRAIN.BG_THRESH_HI", "TRAIN.BG_THRESH_LO",
    "TRAIN.CROWD_FILTER_THRESH", "TRAIN.FG_FRACTION", "TRAIN.FG_THRESH", "TRAIN.RPN_FG_FRACTION",
    "TRAIN.RPN_NEGATIVE_OVERLAP", "TRAIN.RPN_NMS_THRESH", "TRAIN.RPN_POSITIVE_OVERLAP", "VIS_TH",
))
# fmt: on

# What each policy reads, besides GAMMA: the rates first, then the iterations.
POLICIES: Mapping[str, tuple[str, ...]] = {
    "step": ("BASE_LR", "STEP_SIZE"),
    "steps_with_decay": ("BASE_LR", "STEPS"),
    "steps_with_lrs": ("LRS", "STEPS"),
    "cosine_decay": ("BASE_LR",),
    "exp_decay": ("BASE_LR",),
}
# The rate per image of every config that comes with Detectron: 0.02 for 8 GPUs x 2 images; RetinaNet's are at 0.01.
RATE_PER_IMAGE = Fraction("0.00125")
RETINANET_RATE_PER_IMAGE = Fraction("0.000625")
# How far a schedule may be from the rule's, as a part of it: who rounds 213333 to 213000 has followed the rule.
TOLERANCE = Fraction(1, 100)


class ConfigError(ValueError):
    """What is wrong with a config or with what is asked of it, in one sentence or two."""


class Difference(NamedTuple):
    """One option that differs; `before` or `after` is None where a config does not have it."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True)
class Unscaled:
    """Why a schedule is not what the rule gives.

    rate: learning rate as a multiple of the rule's. length: iterations as a multiple of the rule's; None where no
    baseline tells it. cause, consequence, remedy: sentences.
    """

    rate: float
    length: float | None
    cause: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause} {self.consequence} {self.remedy}"


# --- Reading and writing


class _Loader(yaml.SafeLoader):
    """YAML as Detectron reads it, but for a key that stands twice: there the first would silently be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _value in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{key} stands twice in one section, again in line {line}; Detectron would lose one.")
            if isinstance(key, str):
                seen.add(key)
        return dict(super().construct_mapping(node, deep))


class _Dumper(yaml.SafeDumper):
    """Sections as blocks and lists in one line, as in Detectron's own configs."""


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _represent_list)


def parse(text: str) -> Config:
    """A config out of its YAML. Raises ConfigError."""
    try:
        config = yaml.load(str(text), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"This is no YAML{where}: {getattr(error, 'problem', None) or error}.") from error
    except RecursionError as error:
        raise ConfigError("This is no config: it is nested too deeply.") from error
    if not isinstance(config, dict) or not config:
        raise ConfigError("This is no config of Detectron: it has no sections such as MODEL and SOLVER.")
    for key in config:
        if not isinstance(key, str):
            raise ConfigError(f"{key!r} is no name of an option.")
    for section in SECTIONS & config.keys():
        if not isinstance(config[section], dict):
            raise ConfigError(f"{section} is a section; {_shown(config[section])} stands in its place.")
    return config


def render(config: Config, comment: str = "") -> str:
    """The YAML of a config, which Detectron reads as it reads the dict. `comment` goes above it."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return head + yaml.dump(_plain(config), Dumper=_Dumper, sort_keys=False, width=2**20)


def decode(value: Any) -> Any:
    """What Detectron takes a value for: a string that holds a Python literal is that literal. Raises ConfigError."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return str(value)
    except (MemoryError, RecursionError, TypeError) as error:
        raise ConfigError(f"{_shown(value)} cannot be read: {error}.") from error


def option(config: Config, key: str) -> Any:
    """An option of a config by its dotted key, as Detectron takes it: its default where the config is silent.

    Raises ConfigError where Detectron would not take it either.
    """
    default = DEFAULTS[key]
    given = _given(config, key)
    if given is None:
        return copy.copy(default)
    return _coerced(key, decode(given), default)


def _given(config: Config, key: str) -> Any:
    """What stands in a config; None where nothing does."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _set(config: Config, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        config = config.setdefault(section, {})
    config[name] = value


def _coerced(key: str, value: Any, like: Any) -> Any:
    """A value of the type of another one, as Detectron makes it. Raises ConfigError where Detectron would refuse it.

    But for whole numbers in place of others, which it refuses: those are meant.
    """
    if type(value) is type(like):
        return value
    if type(value) is int and isinstance(like, float):
        return float(value)
    if isinstance(like, str):
        return str(value)
    if isinstance(value, (list, tuple)) and isinstance(like, (list, tuple)):
        return type(like)(value)
    raise ConfigError(f"{key} is {_shown(value)}; Detectron takes {_A[type(like).__name__]} there and nothing else.")


_A = {
    "int": "a whole number",
    "float": "a number with a decimal point",
    "bool": "True or False",
    "list": "a list",
    "tuple": "a tuple or list",
    "dict": "a section",
    "NoneType": "None",
}


def _plain(value: Any) -> Any:
    """Without the subclasses of str and dict that Ansible makes of them; tuples as Detectron's configs write them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return repr(_python(value))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise ConfigError(f"{_shown(value)} cannot stand in a config.")


def _python(value: Any) -> Any:
    """A value inside a tuple, of Python's own types."""
    if isinstance(value, tuple):
        return tuple(map(_python, value))
    if isinstance(value, list):  # also Ansible's own, which cannot be made of an iterator
        return list(map(_python, value))
    return _plain(value)


def _shown(value: Any) -> str:
    if value is None:
        return "(not there)"
    text = value if isinstance(value, str) and value and value.isprintable() else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


# --- Deriving


def derive(
    text: str,
    gpus: int = 1,
    *,
    train: Sequence[str] = (),
    test: Sequence[str] = (),
    categories: int | None = None,
    weights: str | None = None,
    output: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """The config for so many GPUs, out of any config's YAML, by the linear scaling rule.

    train, test: names of datasets; none: the config's. categories: of those datasets, without the background.
    weights: a file; "" for none; None for the config's. output: OUTPUT_DIR. options: {"TRAIN.SCALES": [600], ...}, by
    dotted keys, which win over everything else. Raises ConfigError.
    """
    config = copy.deepcopy(parse(text))
    chosen = _chosen(config, options or {})
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 1:
        raise ConfigError(f"GPUs: {_shown(gpus)}; it has to be a whole number of at least 1.")
    if chosen.get("NUM_GPUS", gpus) != gpus:
        raise ConfigError(f"NUM_GPUS is {chosen['NUM_GPUS']} among the options, but the number of GPUs is {gpus}.")
    for key, value in scaled(config, gpus, chosen.get("TRAIN.IMS_PER_BATCH")).items():
        _set(config, key, value)
    config["NUM_GPUS"] = int(gpus)
    for key, names in (("TRAIN.DATASETS", train), ("TEST.DATASETS", test)):
        if names:
            _set(config, key, tuple(_dataset(key, name) for name in names))
    if categories is not None:
        if isinstance(categories, bool) or not isinstance(categories, int) or categories < 1:
            raise ConfigError(f"Categories: {_shown(categories)}; it has to be a whole number of at least 1.")
        _set(config, "MODEL.NUM_CLASSES", categories + 1)
    if weights is not None:
        _set(config, "TRAIN.WEIGHTS", _path("TRAIN.WEIGHTS", weights))
    if output is not None:
        _set(config, "OUTPUT_DIR", _path("OUTPUT_DIR", output))
    for key, value in chosen.items():
        _set(config, key, value)
    if "TEST.FORCE_JSON_DATASET_EVAL" not in chosen and _without_evaluator(config):
        _set(config, "TEST.FORCE_JSON_DATASET_EVAL", True)
    _check_counts(config)
    return dict(_plain(config))


def for_testing(
    text: str,
    weights: str,
    output: str,
    gpus: int = 1,
    *,
    test: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """The config for using a trained model, out of the one that it was trained by.

    weights: the model's file. output: OUTPUT_DIR. test: names of datasets; none: the config's. options: as of `derive`.
    What the training began with is not named any more: Detectron would fetch it, to test as well. Raises ConfigError.
    """
    config = copy.deepcopy(parse(text))
    chosen = _chosen(config, options or {})
    config["NUM_GPUS"] = int(gpus)
    config["OUTPUT_DIR"] = _path("OUTPUT_DIR", output)
    _set(config, "TRAIN.WEIGHTS", "")
    _set(config, "TEST.WEIGHTS", _path("TEST.WEIGHTS", weights))
    if _given(config, "TRAIN.PROPOSAL_FILES") is not None:
        _set(config, "TRAIN.PROPOSAL_FILES", ())
    if test:
        _set(config, "TEST.DATASETS", tuple(_dataset("TEST.DATASETS", name) for name in test))
    for key, value in chosen.items():
        _set(config, key, value)
    if "TEST.FORCE_JSON_DATASET_EVAL" not in chosen and _without_evaluator(config):
        _set(config, "TEST.FORCE_JSON_DATASET_EVAL", True)
    return dict(_plain(config))


def cannot_infer(config: Config) -> str:
    """Why the pictures of infer_simple.py cannot be had of a model; "" where they can. Raises ConfigError."""
    if option(config, "MODEL.RPN_ONLY"):
        return "its model only proposes boxes (MODEL.RPN_ONLY), and names nothing. Take a Faster or Mask R-CNN."
    return f"its model does not find boxes itself. {_PROPOSALS}" if _takes_proposals(config) else ""


def scaled(config: Config, gpus: int, images: int | None = None) -> dict[str, Any]:
    """{dotted key: value} of the schedule for so many GPUs, and so many images on each (None: the config's).

    Learning rates are exact products, rounded once to the nearest float. Iterations are rounded to the nearest whole
    number, halves up, and never below 1; the first step stays 0. Only what the config has or its policy reads is there.
    Raises ConfigError.
    """
    policy = _policy(config)
    images = option(config, "TRAIN.IMS_PER_BATCH") if images is None else images
    k = Fraction(gpus * _positive("TRAIN.IMS_PER_BATCH", images), _batch(config))
    found: dict[str, Any] = {}
    for name in ("BASE_LR", "LRS", "MAX_ITER", "STEP_SIZE", "STEPS"):
        key = f"SOLVER.{name}"
        if _given(config, key) is None and (k == 1 or name not in (*POLICIES[policy], "MAX_ITER")):
            continue
        value = option(config, key)
        if name == "BASE_LR":
            found[key] = _rate(key, value, k)
        elif name == "LRS":
            found[key] = [_rate(key, rate, k) for rate in value]
        elif name == "STEPS":
            found[key] = [0 if step == 0 else _iterations(key, step, k) for step in value]
        else:
            found[key] = _iterations(key, _positive(key, value), k)
    return found


def _policy(config: Config) -> str:
    """The name of the policy, whose lists fit each other. Raises ConfigError."""
    policy = str(option(config, "SOLVER.LR_POLICY"))
    if policy not in POLICIES:
        raise ConfigError(f"SOLVER.LR_POLICY is {_shown(policy)}; Detectron has {', '.join(POLICIES)}.")
    if "STEPS" in POLICIES[policy]:
        steps = option(config, "SOLVER.STEPS")
        if not steps or steps[0] != 0:
            raise ConfigError(f"SOLVER.STEPS is {_shown(steps)}; with LR_POLICY {policy} its first number has to be 0.")
        if policy == "steps_with_lrs" and len(option(config, "SOLVER.LRS")) != len(steps):
            raise ConfigError(
                f"SOLVER.LRS has {len(option(config, 'SOLVER.LRS'))} rates for {len(steps)} SOLVER.STEPS; "
                "each step needs one."
            )
    return policy


def _batch(config: Config) -> int:
    """Images per iteration, on all GPUs."""
    images = _positive("TRAIN.IMS_PER_BATCH", option(config, "TRAIN.IMS_PER_BATCH"))
    return images * _positive("NUM_GPUS", option(config, "NUM_GPUS"))


def _positive(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} is {_shown(value)}; it has to be a whole number of at least 1.")
    return value


def _fraction(key: str, value: Any) -> Fraction:
    """The number that is written, which its float only comes near."""
    try:
        return Fraction(repr(float(value)))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{key} is {_shown(value)}; it has to be a number.") from error


def _rate(key: str, value: Any, k: Fraction) -> float:
    return float(_fraction(key, value) * k)


def _iterations(key: str, value: Any, k: Fraction) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{key} has {_shown(value)}; iterations are whole numbers.")
    return max(1, int(value / k + Fraction(1, 2)))


def _chosen(config: Config, options: Mapping[str, Any]) -> Config:
    """Options by dotted keys, each of the type that the config or Detectron has for it. Raises ConfigError."""
    sections = SECTIONS | {name for name, value in config.items() if isinstance(value, dict)}
    chosen = {}
    for key, given in options.items():
        root, dot, _name = key.partition(".")
        if dot and root not in sections:
            raise ConfigError(f"{key}: there is no section {root}. There are: {', '.join(sorted(sections))}.")
        if not dot and key in sections:
            raise ConfigError(f"{key} is a section: name an option of it, as in {key}.NAME.")
        if not dot and key not in OUTSIDE_SECTIONS | config.keys():
            raise ConfigError(f"{key}: an option has the name of its section before it, as in SOLVER.BASE_LR.")
        value = decode(_python(given))
        like = DEFAULTS.get(key, 0.0 if key in FLOATS else decode(_given(config, key)))
        chosen[str(key)] = value if like is None else _coerced(key, value, like)
    return chosen


def _dataset(key: str, name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise ConfigError(f"{key}: {_shown(name)} is no name of a dataset: letters, digits, '_', '-' and '.' alone.")
    return str(name)


def _path(key: str, value: Any) -> str:
    """A path, which Detectron must not take for a number or a tuple."""
    if not isinstance(value, str) or decode(value) != value or not value.isprintable():
        raise ConfigError(f"{key}: {_shown(value)} is no path.")
    return str(value)


def _check_counts(config: Config) -> None:
    """Raises ConfigError where Detectron would fail on numbers that do not fit each other, for some only at the end."""
    period, gpus = option(config, "TRAIN.SNAPSHOT_ITERS"), option(config, "NUM_GPUS")
    if period < gpus:
        raise ConfigError(
            f"TRAIN.SNAPSHOT_ITERS is {period}; Detectron divides it by NUM_GPUS ({gpus}) and fails with less than 1."
        )
    for part in ("TRAIN", "TEST"):
        files, names = option(config, f"{part}.PROPOSAL_FILES"), option(config, f"{part}.DATASETS")
        if _takes_proposals(config) and files and len(files) != len(names):
            raise ConfigError(
                f"{part}.PROPOSAL_FILES and {part}.DATASETS name {len(files)} and {len(names)}: one file each. "
                f"{_PROPOSALS}"
            )


def _without_evaluator(config: Config) -> list[str]:
    """The test datasets that Detectron refuses to evaluate, after all of the testing, by their names alone."""
    return [name for name in option(config, "TEST.DATASETS") if without_evaluator(config, name)]


def without_evaluator(config: Config, name: str) -> bool:
    """Whether Detectron refuses to evaluate on a dataset by its name, unless it is forced to."""
    of_voc = name.startswith("voc_") and not option(config, "MODEL.MASK_ON")
    return not ("coco_" in name or "cityscapes_" in name or of_voc)


# --- Comparing and judging


def differences(before: Config, after: Config) -> list[Difference]:
    """What two configs say differently, in the order of the second."""
    ours, theirs = flat(after), flat(before)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = [Difference(key, theirs.get(key), ours.get(key)) for key in keys]
    return [pair for pair in pairs if not _same(decode(pair.before), decode(pair.after))]


def flat(config: Config, prefix: str = "") -> dict[str, Any]:
    """The options of a config by dotted keys."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _same(one: Any, other: Any) -> bool:
    """Equal as options: 1 is not True, but a list is as good as a tuple."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def notes(config: Config, baseline: Config | None = None) -> list[str]:
    """What a person should know before training with this config, a sentence or two each. Raises ConfigError."""
    found = []
    trained, tested = option(config, "TRAIN.DATASETS"), option(config, "TEST.DATASETS")
    for part, names in (("TRAIN", trained), ("TEST", tested)) if _takes_proposals(config) else ():
        files_key, names_key = f"{part}.PROPOSAL_FILES", f"{part}.DATASETS"
        files = option(config, files_key)
        if names and not files:
            found.append(f"{files_key} names none. {_PROPOSALS}")
        elif baseline and names != option(baseline, names_key) and files == option(baseline, files_key):
            found.append(f"{files_key} are still those of other datasets. {_PROPOSALS}")
    if baseline is not None and trained != option(baseline, "TRAIN.DATASETS"):
        if tested == option(baseline, "TEST.DATASETS"):
            found.append(f"TEST.DATASETS is still {', '.join(tested)}, while TRAIN.DATASETS is {', '.join(trained)}.")
        if option(config, "MODEL.NUM_CLASSES") == option(baseline, "MODEL.NUM_CLASSES"):
            found.append(
                f"MODEL.NUM_CLASSES is still {option(config, 'MODEL.NUM_CLASSES')}: the categories of the datasets, "
                "and one for the background."
            )
    for name in tested:
        if "test" in name:
            found.append(
                f"Detectron evaluates no dataset whose name has 'test' in it, such as {name}: its results are written, "
                "and no AP. Give it another name."
            )
        if option(config, "MODEL.KEYPOINTS_ON") and not name.startswith("keypoints_coco_"):
            found.append(
                f"Detectron evaluates keypoints of datasets named keypoints_coco_… alone. {name} ends in "
                "'Only COCO keypoints are currently supported' after the testing."
            )
    if not option(config, "TEST.FORCE_JSON_DATASET_EVAL") and (without := _without_evaluator(config)):
        found.append(
            f"Testing will end in 'No evaluator for dataset: {without[0]}': TEST.FORCE_JSON_DATASET_EVAL is False."
        )
    weights = option(config, "TRAIN.WEIGHTS")
    if "://" in weights:
        found.append(f"TRAIN.WEIGHTS is an address, which the server has to reach: {weights}")
    elif not weights and not (baseline is not None and not option(baseline, "TRAIN.WEIGHTS")):
        found.append(
            "TRAIN.WEIGHTS names none: training starts from random weights, and at a rate that is meant for pretrained "
            "ones it diverges."
        )
    return found


_PROPOSALS = (
    "This model takes its boxes from such files, one per dataset: make them with an rpn_ model, or take an e2e_ model, "
    "which needs none."
)


def _takes_proposals(config: Config) -> bool:
    """Whether the model has no part that proposes boxes (Detectron's inferred TEST.PRECOMPUTED_PROPOSALS)."""
    return not (option(config, "MODEL.RPN_ONLY") or option(config, "MODEL.FASTER_RCNN") or _is_retinanet(config))


def _is_retinanet(config: Config) -> bool:
    return bool(option(config, "RETINANET.RETINANET_ON"))


def unscaled(config: Config, baseline: Config | None = None, by_name: Collection[str] = ()) -> Unscaled | None:
    """Why a config's schedule is not what the rule gives for its GPUs and images; None where it is.

    baseline: the config of the same name that comes with Detectron. Without one, only a rate that is too high is
    known, by the rate per image that all of Detectron's configs have. by_name: dotted keys that a person has set by
    name for this run; the iterations among them are taken as meant. Raises ConfigError.
    """
    gpus, images = option(config, "NUM_GPUS"), option(config, "TRAIN.IMS_PER_BATCH")
    rate_key, rate = _peak(config)
    rule: Config = {}
    if baseline is None:
        per_image = RETINANET_RATE_PER_IMAGE if _is_retinanet(config) else RATE_PER_IMAGE
        right = per_image * _batch(config)
        if rate <= right * (1 + TOLERANCE):
            return None
    else:
        rule = copy.deepcopy(baseline)
        for key, value in scaled(baseline, gpus, images).items():
            _set(rule, key, value)
        right = _peak(rule)[1]
    wrong, length = [], None
    if not _near(rate / right):
        whose = "what the linear scaling rule gives" if rule else "that of Detectron's own configs for so many"
        wrong.append(f"{rate_key} {float(rate):g} is {_times(rate / right)} {whose} ({float(right):g})")
    if rule and "SOLVER.MAX_ITER" not in by_name:
        iterations, meant = option(config, "SOLVER.MAX_ITER"), option(rule, "SOLVER.MAX_ITER")
        length = Fraction(iterations, meant)
        if not _near(length):
            wrong.append(f"SOLVER.MAX_ITER {iterations} is {_times(length)} the rule's {meant}")
        if "SOLVER.STEPS" not in by_name and _steps_moved(config, rule):
            wrong.append(f"SOLVER.STEPS {option(config, 'SOLVER.STEPS')} are not the rule's")
    if not wrong:
        return None
    return Unscaled(
        rate=float(rate / right),
        length=None if length is None else float(length),
        cause=f"{gpus} {'GPU' if gpus == 1 else 'GPUs'} x {images} images are {_batch(config)} per iteration: "
        f"{'; '.join(wrong)}.",
        consequence=_consequence(rate / right, length),
        remedy=_remedy(rule, rate_key, rate / right),
    )


def _remedy(rule: Config, rate_key: str, excess: Fraction) -> str:
    if not rule:
        return f"Divide {rate_key} by {float(excess):.3g}, and multiply SOLVER.MAX_ITER and SOLVER.STEPS by it."
    keys = ("SOLVER.BASE_LR", "SOLVER.LRS", "SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.STEP_SIZE")
    return f"The rule gives {', '.join(f'{key} {option(rule, key)}' for key in keys if _given(rule, key) is not None)}."


def _peak(config: Config) -> tuple[str, Fraction]:
    """The key that holds the highest learning rate, and that rate."""
    key = f"SOLVER.{POLICIES[_policy(config)][0]}"
    value = option(config, key)
    return key, max(_fraction(key, rate) for rate in (value if isinstance(value, list) else [value]))


def _steps_moved(config: Config, rule: Config) -> bool:
    """Whether the rates change at other iterations than the rule's, where both change them by the same policy."""
    policy = _policy(rule)
    if "STEPS" not in POLICIES[policy] or _policy(config) != policy:
        return False
    steps, right = option(config, "SOLVER.STEPS"), option(rule, "SOLVER.STEPS")
    return len(steps) != len(right) or any(
        abs(step - meant) > max(1, meant * TOLERANCE) for step, meant in zip(steps, right)
    )


def _near(ratio: Fraction) -> bool:
    return abs(ratio - 1) <= TOLERANCE


def _times(ratio: Fraction) -> str:
    return f"{float(ratio):.3g} times"


def _consequence(rate: Fraction, length: Fraction | None) -> str:
    if rate > 1 + TOLERANCE:
        return (
            "Training would diverge, mostly within some hundred iterations: 'Loss is NaN', or 'Negative areas founds' "
            "before that."
        )
    if length is not None and length < 1 - TOLERANCE:
        return f"Training would see {_times(length)} the images of the baseline, and end short of its accuracy."
    if rate < 1 - TOLERANCE:
        return "Training would learn more slowly than the baseline, and end short of its accuracy."
    return "Training would not be the baseline's."


_SCHEDULE = (
    "NUM_GPUS",
    "TRAIN.IMS_PER_BATCH",
    *(f"SOLVER.{name}" for name in ("LR_POLICY", "BASE_LR", "LRS", "GAMMA", "MAX_ITER", "STEPS", "STEP_SIZE")),
    *(f"SOLVER.WARM_UP_{name}" for name in ("METHOD", "ITERS", "FACTOR")),
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
)
_MODEL = ("MODEL.TYPE", "MODEL.CONV_BODY", "MODEL.NUM_CLASSES", "TRAIN.DATASETS")


def resume_conflicts(before: Config, after: Config) -> list[str]:
    """What forbids to go on from a checkpoint of `before` with `after`, a line each; empty where nothing does.

    Detectron itself compares nothing: it goes on at the checkpoint's iteration, whatever that means in the new
    schedule. Raises ConfigError.
    """
    found = []
    for key in (*_SCHEDULE, *_MODEL):
        was, now = option(before, key), option(after, key)
        if not _same(was, now):
            found.append(f"{key} was {_shown(was)} where the checkpoint was trained, and is {_shown(now)}")
    return found
