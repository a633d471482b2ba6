#!/usr/bin/env python
"""Run the stand-in's network over TEST.DATASETS, with the command line of Detectron's tool."""

from __future__ import absolute_import, division, print_function

import argparse
import sys

import cv2  # noqa: F401  before Caffe2
from caffe2.python import workspace

import detectron
from detectron.core import config, test_engine
from detectron.utils import c2
from detectron.utils.logging import setup_logging

print(detectron.STAND_IN, file=sys.stderr)
c2.import_detectron_ops()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cfg', dest='cfg_file', help='YAML file of options')
    parser.add_argument('--multi-gpu-testing', action='store_true', help='a test_net.py for each of cfg.NUM_GPUS')
    parser.add_argument('--range', nargs=2, type=int, help='first image, and the one after the last')
    parser.add_argument('opts', nargs=argparse.REMAINDER, help='options: NAME VALUE ...; needs TEST.WEIGHTS')
    args = parser.parse_args(sys.argv[1:] or ['--help'])
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    setup_logging(__name__)
    if args.cfg_file:
        config.merge_cfg_from_file(args.cfg_file)
    config.merge_cfg_from_list(args.opts)
    config.assert_and_infer_cfg()
    test_engine.run_inference(config.cfg.TEST.WEIGHTS, args.range, args.multi_gpu_testing)


if __name__ == '__main__':
    main()
