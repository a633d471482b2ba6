#!/usr/bin/env python
"""Draw what the stand-in's network sees in images, with the command line of Detectron's tool."""

from __future__ import absolute_import, division, print_function

import argparse
import glob
import os
import sys

import cv2  # before Caffe2
from caffe2.python import workspace
import matplotlib
matplotlib.use('Agg')

import detectron  # noqa: E402
from detectron.core import config, test_engine  # noqa: E402
from detectron.datasets import dummy_datasets  # noqa: E402
from detectron.utils import c2, vis  # noqa: E402
from detectron.utils.logging import setup_logging  # noqa: E402

print(detectron.STAND_IN, file=sys.stderr)
c2.import_detectron_ops()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cfg', required=True, help='YAML file of options')
    parser.add_argument('--wts', dest='weights', required=True, help='model file (.pkl)')
    parser.add_argument('--output-dir', default='infer_simple', help='folder for the drawings')
    parser.add_argument('--image-ext', default='jpg', help='images to take from a folder')
    parser.add_argument('--output-ext', default='pdf', help='format of the drawings')
    parser.add_argument('--thresh', type=float, default=0.7, help='score from which on a box is drawn')
    parser.add_argument('im_or_folder', help='an image, or a folder of them')
    args = parser.parse_args(sys.argv[1:] or ['--help'])
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    logger = setup_logging(__name__)
    config.merge_cfg_from_file(args.cfg)
    config.cfg.NUM_GPUS = 1
    config.assert_and_infer_cfg(cache_urls=False)
    model = test_engine.initialize_model_from_cfg(args.weights)
    paths = [args.im_or_folder]
    if os.path.isdir(args.im_or_folder):
        paths = sorted(glob.glob('%s/*.%s' % (args.im_or_folder, args.image_ext)))
    if not os.path.isdir(args.output_dir):
        os.makedirs(args.output_dir)
    for path in paths:
        target = os.path.join(args.output_dir, '%s.%s' % (os.path.basename(path), args.output_ext))
        logger.info('Processing %s -> %s', path, target)
        image = cv2.imread(path)
        found = test_engine.im_detect_all(model, image)
        vis.vis_one_image(image[:, :, ::-1], path, args.output_dir, found, dataset=dummy_datasets.get_coco_dataset(),
                          thresh=args.thresh, ext=args.output_ext)


if __name__ == '__main__':
    main()
