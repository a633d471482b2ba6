#!/usr/bin/env python3
"""Derive a config of Detectron for another number of GPUs, other datasets, other options.

By the linear scaling rule: learning rates are multiplied, iterations divided, by the images per iteration as a multiple
of the baseline's. Prints the YAML, or writes it to --file; says on the terminal what differs from the baseline.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from plugins.module_utils import detectron_config as configs

EXAMPLES = """\
examples:
  The baseline for two GPUs:
    scripts/derive_config.py configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml --gpus 2 --file my.yaml
  With a dataset of your own that has three categories, from a baseline on a server:
    ssh gpu1 cat detectron/cuda90_wheel/current/detectron/detectron/configs/12_2017_baselines/NAME.yaml |
      scripts/derive_config.py - --gpus 2 --train cells_train --test cells_val --categories 3
  What is wrong with a schedule (ends with 1 where something is):
    scripts/derive_config.py my.yaml --judge --baseline configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml
"""


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="the baseline: a file, or - for standard input")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to train on (default: 1)")
    parser.add_argument("--images", type=int, metavar="N", help="images on each GPU (default: the baseline's)")
    parser.add_argument("--train", nargs="+", default=[], metavar="DATASET", help="datasets to train on")
    parser.add_argument("--test", nargs="+", default=[], metavar="DATASET", help="datasets to evaluate on")
    parser.add_argument("--categories", type=int, metavar="N", help="categories of the datasets, without background")
    parser.add_argument("--weights", metavar="FILE", help="pretrained weights; 'random' for none")
    parser.add_argument("--output-dir", metavar="FOLDER", help="where Detectron writes")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any option, as in TRAIN.SCALES='(600,)'"
    )
    parser.add_argument("--file", type=Path, metavar="FILE", help="write the config there; a file that is there stays")
    parser.add_argument("--judge", action="store_true", help="only say whether the config's schedule is scaled")
    parser.add_argument("--baseline", metavar="FILE", help="with --judge: Detectron's config of the same name")
    return parser


def read(name: str) -> str:
    """A config's text. Raises ConfigError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise configs.ConfigError(f"{name} cannot be read: {error}.") from error


def chosen(asked: argparse.Namespace) -> dict[str, Any]:
    """Options by dotted keys. Raises ConfigError."""
    found: dict[str, Any] = {}
    for word in asked.set:
        key, equals, value = word.partition("=")
        if not equals:
            raise configs.ConfigError(f"--set {word}: write KEY=VALUE.")
        found[key] = value
    if asked.images is not None:
        found["TRAIN.IMS_PER_BATCH"] = asked.images
    return found


def write(path: Path, text: str) -> None:
    """A new file, which is there whole or not at all. Raises ConfigError where another one is there."""
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        raise configs.ConfigError(f"{path} is there already, with other text. Remove it, or name another file.")
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        os.link(part, path)
    except OSError as error:
        raise configs.ConfigError(f"{path} cannot be written: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def judge(asked: argparse.Namespace) -> int:
    baseline = configs.parse(read(asked.baseline)) if asked.baseline else None
    found = configs.unscaled(configs.parse(read(asked.config)), baseline)
    print(found or "The schedule is what the linear scaling rule gives.")
    return 1 if found else 0


def derive(asked: argparse.Namespace) -> int:
    text = read(asked.config)
    config = configs.derive(
        text,
        asked.gpus,
        train=asked.train,
        test=asked.test,
        categories=asked.categories,
        weights={"random": ""}.get(asked.weights, asked.weights),
        output=asked.output_dir,
        options=chosen(asked),
    )
    before = configs.parse(text)
    lines = [f"  {difference}" for difference in configs.differences(before, config)] or ["  nothing"]
    unscaled = configs.unscaled(config, before, asked_by_name(asked))
    remarks = [*configs.notes(config, before), *([str(unscaled)] if unscaled else [])]
    result = configs.render(config, f"Derived from {Path(asked.config).name} by scripts/derive_config.py")
    if asked.file:
        write(asked.file, result)
    else:
        sys.stdout.write(result)
        sys.stdout.flush()
    print(
        "What differs from the baseline:", *lines, *(f"Note: {remark}" for remark in remarks), sep="\n", file=sys.stderr
    )
    return 0


def asked_by_name(asked: argparse.Namespace) -> list[str]:
    return [word.partition("=")[0] for word in asked.set]


def main() -> int:
    parser = arguments()
    asked = parser.parse_args()
    if asked.baseline and not asked.judge:
        parser.error("--baseline goes with --judge; the baseline to derive from is the first argument")
    try:
        return judge(asked) if asked.judge else derive(asked)
    except configs.ConfigError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
