#!/usr/bin/env python
"""Train the stand-in's network, with the command line of Detectron's tool."""

from __future__ import absolute_import, division, print_function

import argparse
import pprint
import sys

import cv2  # noqa: F401  before Caffe2
from caffe2.python import workspace

import detectron
from detectron.core import config, test_engine
from detectron.utils import c2, train
from detectron.utils.logging import setup_logging

print(detectron.STAND_IN, file=sys.stderr)
c2.import_contrib_ops()
c2.import_detectron_ops()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cfg', dest='cfg_file', help='YAML file of options')
    parser.add_argument('--multi-gpu-testing', action='store_true', help='a test_net.py for each of cfg.NUM_GPUS')
    parser.add_argument('--skip-test', action='store_true', help='do not test the final model')
    parser.add_argument('opts', nargs=argparse.REMAINDER, help='options as pairs: NAME VALUE ...')
    args = parser.parse_args(sys.argv[1:] or ['--help'])
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    logger = setup_logging(__name__)
    if args.cfg_file:
        config.merge_cfg_from_file(args.cfg_file)
    config.merge_cfg_from_list(args.opts)
    config.assert_and_infer_cfg()
    logger.info('nvidia-smi, CUDA and cuDNN: %s', c2.get_nvidia_info())
    logger.info('Training with config:\n%s', pprint.pformat(config.cfg))
    final = train.train_model()['final']
    if not args.skip_test:
        workspace.ResetWorkspace()
        test_engine.run_inference(final, multi_gpu_testing=args.multi_gpu_testing)


if __name__ == '__main__':
    main()
