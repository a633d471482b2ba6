#!/usr/bin/env python
"""Compare the CPU operators with Detectron's own on a GPU: outputs and gradients, on the same random inputs.

  . <prefix>/current/activate.sh
  python operators_gpu.py [--gpu 0] [--tolerance 1e-5]

Needs Caffe2 with Detectron's operators, cpu_operators.py ($DETECTRON_TOOLS, files/py27/ of this repository, or beside
this file), and nothing else, so it can be copied to a server. Exit status: 0 all that ran there agree, 1 one
does not, 2 there is no GPU or no operator to compare with.

A difference is the largest of all numbers, in shares of the largest number where that is above 1. On GPUs that are
newer than Caffe2, the first operator waits for the driver to compile: minutes.
"""

from __future__ import absolute_import, division, print_function

import argparse
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(sys.argv[0]))
sys.path[1:1] = [os.environ.get('DETECTRON_TOOLS', HERE), os.path.join(HERE, '..', 'files', 'py27')]

from caffe2.proto import caffe2_pb2  # noqa: E402
from caffe2.python import core, dyndep, workspace  # noqa: E402
import numpy as np  # noqa: E402

import cpu_operators  # noqa: E402

LIBRARY = 'libcaffe2_detectron_ops_gpu.so'


def cases(random):
    """(title, operator, inputs, arguments): shapes as in Mask R-CNN on a pyramid, then the corners."""

    def numbers(*shape):
        return random.randn(*shape).astype(np.float32)

    def weights(*shape):
        return random.choice([0, 0.5, 1, 2], size=shape).astype(np.float32)

    def labels(*shape):
        return random.choice([-1, 0, 1], size=shape).astype(np.int32)

    def permutation(number):
        return random.permutation(number).astype(np.int32)

    boxes, maps, masks = (512, 324), (2, 12, 50, 67), (32, 81, 28, 28)
    yield 'box targets of a level', 'SpatialNarrowAs', [numbers(2, 12, 84, 84), numbers(*maps)], {}
    yield 'labels of a level', 'SpatialNarrowAs', [labels(2, 3, 84, 84), numbers(2, 3, 50, 67)], {}
    yield 'to a map without channels', 'SpatialNarrowAs', [numbers(2, 3, 84, 84), numbers(2, 50, 67)], {}
    yield 'boxes', 'SmoothL1Loss', [numbers(*boxes) for _ in 'ab'] + [weights(*boxes) for _ in 'ab'], {'scale': 0.125}
    yield ('proposals of a level', 'SmoothL1Loss', [numbers(*maps) for _ in 'ab'] + [weights(*maps) for _ in 'ab'],
           {'beta': 1 / 9, 'scale': 0.125})
    yield 'objectness', 'SigmoidCrossEntropyLoss', [4 * numbers(2, 15, 25, 34), labels(2, 15, 25, 34)], {'scale': 0.125}
    yield ('objectness of a level', 'SigmoidCrossEntropyLoss', [4 * numbers(2, 3, 50, 67), labels(2, 3, 50, 67)],
           {'normalize': 0, 'scale': 0.125 / 512})
    yield ('masks, targets flat', 'SigmoidCrossEntropyLoss', [numbers(*masks), labels(32, 81 * 28 * 28)], {'scale': 0.125})
    yield 'large logits', 'SigmoidCrossEntropyLoss', [100 * numbers(64, 81), labels(64, 81)], {}
    yield 'regions', 'BatchPermutation', [numbers(512, 256, 7, 7), permutation(512)], {}
    yield 'one region', 'BatchPermutation', [numbers(1, 256, 7, 7), permutation(1)], {}
    yield 'foreground', 'SampleAs', [numbers(64, 256, 7, 7), labels(64)], {}
    yield 'a level', 'UpsampleNearest', [numbers(2, 256, 25, 34)], {'scale': 2}
    yield 'by three', 'UpsampleNearest', [numbers(1, 3, 5, 7)], {'scale': 3}
    yield 'nothing to learn', 'SigmoidCrossEntropyLoss', [numbers(4, 6), labels(4, 6) * 0 - 1], {}
    yield 'no rows', 'SmoothL1Loss', [numbers(0, 4) for _ in 'abcd'], {}


def run(operator, inputs, d_output, arguments, device):
    """(output, gradient of the first input; None for labels) of an operator in a network; `device` None: ours."""
    workspace.ResetWorkspace()
    net, names = core.Net('compare'), ['input%d' % index for index in range(len(inputs))]
    for name, array in zip(names, inputs):
        workspace.FeedBlob(name, array, device_option=device)
    with core.DeviceScope(device or core.DeviceOption(caffe2_pb2.CPU)):
        # Past the methods that cpu_operators.install() gives to networks.
        add = getattr(net, operator) if device is None else core.Net.__getattr__(net, operator)
        output, gradients = add(names, 'output', **arguments), {}
        if inputs[0].dtype == np.float32:
            workspace.FeedBlob('d_output', d_output, device_option=device)
            gradients = net.AddGradientOperators({output: net.AddExternalInput('d_output')})
        workspace.RunNetOnce(net)
    gradient = gradients.get('input0')
    return workspace.FetchBlob('output'), None if gradient is None else workspace.FetchBlob(str(gradient))


def difference(ours, theirs):
    """The largest one, in shares of the largest number where that is above 1; infinite where shapes or types differ, or
    only one has a number."""
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else np.inf
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return np.inf
    if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return np.inf
    rest = ~np.isnan(theirs)
    if not rest.any():
        return 0.0
    ours, theirs = ours[rest].astype(np.float64), theirs[rest].astype(np.float64)
    return np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())


def load_operators():
    """Register Detectron's operators, as Detectron does it; the path of their library, '' where there is none."""
    for folder in [sys.prefix] + sys.path:
        for below in ('lib', 'torch/lib'):
            path = os.path.join(folder, below, LIBRARY)
            if os.path.exists(path):
                dyndep.InitOpsLibrary(path)
                return path
    return ''


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gpu', type=int, default=0, help='number of the GPU (default 0)')
    parser.add_argument('--tolerance', type=float, default=1e-5, help='largest difference that is no failure')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=2'])
    gpus = workspace.NumCudaDevices()
    if gpus <= options.gpu:
        parser.exit(2, 'operators_gpu.py: there is no GPU %d here: Caffe2 sees %d. Nothing was compared.\n'
                    % (options.gpu, gpus))
    path = load_operators()
    if not path:
        parser.exit(2, "operators_gpu.py: Detectron's operators (%s) are not here. Nothing was compared.\n" % LIBRARY)
    gpu = core.DeviceOption(caffe2_pb2.CUDA, options.gpu)
    cpu_operators.install()
    print('Operators of %s on GPU %d, and %s' % (path, options.gpu, cpu_operators.__file__))
    print('%-24s %-26s %-10s %-10s %7s' % ('operator', 'inputs', 'output', 'gradient', 'seconds'))
    random, failed, not_run = np.random.RandomState(options.seed), [], []
    for title, operator, inputs, arguments in cases(random):
        began = time.time()
        expected = cpu_operators.OPERATORS[operator].forward(*inputs, **arguments)
        d_output = np.array(random.randn(*np.shape(expected)), np.float32)
        ours = run(operator, inputs, d_output, arguments, None)
        try:
            theirs = run(operator, inputs, d_output, arguments, gpu)
        except RuntimeError as error:  # as on GPUs that cuBLAS has no code for
            why = re.search(r'CU\w+_STATUS_\w+|error == cudaSuccess[^\n]*', str(error))
            not_run.append('%s (%s)' % (operator, title))
            print('%-24s %-26s not run there: %s' % (operator, title, why.group() if why else str(error)[:80]))
            continue
        differences = [difference(mine, real) for mine, real in zip(ours, theirs)]
        agree = max(differences) <= options.tolerance
        failed += [] if agree else ['%s (%s)' % (operator, title)]
        print('%-24s %-26s %-10.2g %-10.2g %7.1f  %s' % (
            (operator, title) + tuple(differences) + (time.time() - began, 'agree' if agree else 'DIFFER')))
        sys.stdout.flush()
    if set(cpu_operators.OPERATORS) - set(case[1] for case in cases(random)):
        failed.append('an operator has no case here')
    if not_run:
        print('Not compared, because this GPU cannot run them: %s' % ', '.join(not_run))
    print('All that ran agree.' if not failed else 'Above the tolerance of %g: %s' % (options.tolerance, ', '.join(failed)))
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
