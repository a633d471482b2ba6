"""The CPU operators in real Caffe2 networks: outputs and gradients against formulas written apart, one number at a time.

Runs in the 2.7 environment, with files/py27 on the path. The gradients are compared with finite differences of those
formulas, in double precision.
"""

from __future__ import absolute_import, division, print_function

import math
import unittest

from caffe2.proto import caffe2_pb2
from caffe2.python import core, muji, utils, workspace
import numpy as np

import cpu_operators

STEP = 1e-6  # of the finite differences


def numbers(*shape):
    """Reproducible numbers about 0, no two alike."""
    return np.random.RandomState(sum(shape) + len(shape)).randn(*shape).astype(np.float32)


def run(name, inputs, d_output=None, **arguments):
    """Run an operator in a network, as Detectron builds them: (output, gradient of the first input or None)."""
    workspace.ResetWorkspace()
    names = ['input%d' % index for index in range(len(inputs))]
    for blob, array in zip(names, inputs):
        workspace.FeedBlob(blob, array)
    net = core.Net('test')
    output = getattr(net, name)(names if len(names) > 1 else names[0], 'output', **arguments)
    gradients = {}
    if d_output is not None:
        workspace.FeedBlob('d_output', d_output)
        gradients = net.AddGradientOperators({output: net.AddExternalInput('d_output')})
    workspace.RunNetOnce(net)
    gradient = gradients.get('input0')
    return workspace.FetchBlob('output'), None if gradient is None else workspace.FetchBlob(str(gradient))


def finite_differences(formula, inputs, d_output, **arguments):
    """The gradient of sum(d_output * formula(inputs)) by the first input, number by number."""
    first = inputs[0].astype(np.float64)
    gradient = np.zeros_like(first)
    for index in np.ndindex(*first.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = first.copy()
            moved[index] += step
            ends.append((np.asarray(formula(moved, *inputs[1:], **arguments)) * d_output).sum())
        gradient[index] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


# --- formulas ---


def narrow(wide, like):
    result = np.zeros(wide.shape[:2] + like.shape[-2:], wide.dtype)
    for n, c, h, w in np.ndindex(*result.shape):
        result[n, c, h, w] = wide[n, c, h, w]
    return result


def smooth_l1(predicted, target, inside, outside, beta=1.0, scale=1.0):
    total = 0.0
    for y_hat, y, a_in, a_out in zip(predicted.flat, target.flat, inside.flat, outside.flat):
        x = float(a_in) * (float(y_hat) - float(y))
        total += float(a_out) * (0.5 * x * x / beta if abs(x) < beta else abs(x) - 0.5 * beta)
    return scale * total / target.shape[0]


def cross_entropy(logits, target, scale=1.0, normalize=1):
    terms = []
    for x, t in zip(logits.flat, target.flat):
        if t != -1:
            # log(1 + e^x) and log(1 + e^-x), by whichever power does not overflow
            terms.append(math.log1p(math.exp(-abs(x))) + max(-x if t == 1 else x, 0))
    return scale * sum(terms) / (max(len(terms), 1e-5) if normalize else 1)


def permute(rows, indices):
    return np.array([rows[index] for index in indices]).reshape(rows.shape)


def sample(rows, labels):
    kept = [row for row, label in zip(rows, labels) if label > 0]
    return np.array(kept).reshape((len(kept),) + rows.shape[1:])


def upsample(image, scale=2):
    result = np.zeros(image.shape[:-2] + (image.shape[-2] * scale, image.shape[-1] * scale), image.dtype)
    for index in np.ndindex(*result.shape):
        result[index] = image[index[:-2] + (index[-2] // scale, index[-1] // scale)]
    return result


FORMULAS = {
    'SpatialNarrowAs': narrow,
    'SmoothL1Loss': smooth_l1,
    'SigmoidCrossEntropyLoss': cross_entropy,
    'BatchPermutation': permute,
    'SampleAs': sample,
    'UpsampleNearest': upsample,
}


def weights(*shape):
    """As Detectron's inside and outside weights: some 0, some not 1."""
    return np.resize(np.array([0, 1, 0.25, 2, 1], np.float32), shape)


def labels(*shape):
    return np.resize(np.array([-1, 0, 1, 1, -1, 0, 0], np.int32), shape)


# Name: (operator, inputs, arguments).
CASES = {
    'narrow_odd_sizes': ('SpatialNarrowAs', [numbers(2, 3, 5, 7), numbers(2, 3, 3, 4)], {}),
    'narrow_to_the_same_size': ('SpatialNarrowAs', [numbers(1, 2, 3, 4), numbers(1, 2, 3, 4)], {}),
    'narrow_to_one_pixel': ('SpatialNarrowAs', [numbers(1, 1, 2, 2), numbers(1, 1, 1, 1)], {}),
    'narrow_to_what_has_no_channels': ('SpatialNarrowAs', [numbers(2, 3, 5, 7), numbers(2, 4, 6)], {}),
    'smooth_l1_of_boxes': ('SmoothL1Loss', [numbers(3, 8), numbers(3, 9)[:, :8].copy(), weights(3, 8), weights(3, 8)],
                           {'scale': 0.5}),
    'smooth_l1_of_maps': ('SmoothL1Loss', [3 * numbers(2, 4, 3, 5), numbers(2, 4, 5, 3).reshape(2, 4, 3, 5),
                                           weights(2, 4, 3, 5), weights(2, 4, 3, 5)], {'beta': 1 / 9, 'scale': 2.0}),
    'smooth_l1_by_default': ('SmoothL1Loss', [3 * numbers(4, 4), 0 * numbers(4, 4)] + 2 * [1 + 0 * numbers(4, 4)], {}),
    'smooth_l1_without_a_weight': ('SmoothL1Loss', [numbers(2, 4)] + 3 * [0 * numbers(2, 4)], {}),
    'cross_entropy': ('SigmoidCrossEntropyLoss', [3 * numbers(2, 3, 5, 7), labels(2, 3, 5, 7)], {}),
    'cross_entropy_as_a_sum': ('SigmoidCrossEntropyLoss', [numbers(2, 3, 4, 5), labels(2, 3, 4, 5)],
                               {'scale': 1 / 256, 'normalize': 0}),
    'cross_entropy_of_flat_targets': ('SigmoidCrossEntropyLoss', [numbers(3, 2, 4, 4), labels(3, 32)], {'scale': 0.5}),
    'cross_entropy_of_nothing': ('SigmoidCrossEntropyLoss', [numbers(2, 6), 0 * labels(2, 6) - 1], {'scale': 3.0}),
    'cross_entropy_of_nothing_as_a_sum': ('SigmoidCrossEntropyLoss', [numbers(2, 6), 0 * labels(2, 6) - 1],
                                          {'normalize': 0}),
    'cross_entropy_without_rows': ('SigmoidCrossEntropyLoss', [numbers(0, 6), labels(0, 6)], {}),
    'permutation': ('BatchPermutation', [numbers(5, 2, 3, 3), np.array([3, 0, 4, 1, 2], np.int32)], {}),
    'permutation_of_one': ('BatchPermutation', [numbers(1, 2, 3, 3), np.array([0], np.int32)], {}),
    'permutation_without_rois': ('BatchPermutation', [numbers(0, 2, 3, 3), np.zeros(0, np.int32)], {}),
    'sample': ('SampleAs', [numbers(5, 2, 3, 3), np.array([1, 0, -1, 1, 7], np.int32)], {}),
    'sample_of_nothing': ('SampleAs', [numbers(3, 2, 3, 3), np.zeros(3, np.int32)], {}),
    'upsample_by_default': ('UpsampleNearest', [numbers(2, 3, 3, 5)], {}),
    'upsample_one_pixel': ('UpsampleNearest', [numbers(1, 2, 1, 1)], {'scale': 3}),
    'upsample_without_a_batch': ('UpsampleNearest', [numbers(2, 3, 2)], {'scale': 2}),
}


class OperatorTest(unittest.TestCase):
    """Gets a test of output and gradient for each case."""

    def check(self, name, inputs, arguments):
        expected = np.asarray(FORMULAS[name](*inputs, **arguments), np.float64)
        d_output = np.asarray(numbers(*expected.shape) if expected.shape else 0.7, np.float32)
        output, gradient = run(name, inputs, d_output, **arguments)
        self.assertEqual((output.shape, output.dtype), (expected.shape, np.float32))
        np.testing.assert_allclose(output, expected, rtol=2e-6, atol=2e-6)
        self.assertEqual((gradient.shape, gradient.dtype), (inputs[0].shape, np.float32))
        slopes = finite_differences(FORMULAS[name], inputs, d_output, **arguments)
        np.testing.assert_allclose(gradient, slopes, rtol=2e-5, atol=2e-6)

    def test_every_operator_has_cases(self):
        self.assertEqual(set(case[0] for case in CASES.values()), set(cpu_operators.OPERATORS))
        self.assertEqual(set(FORMULAS), set(cpu_operators.OPERATORS))

    def test_labels_are_narrowed_as_whole_numbers(self):
        wide = labels(2, 3, 5, 6)
        output, _ = run('SpatialNarrowAs', [wide, numbers(2, 3, 4, 5)])
        self.assertEqual(output.dtype, np.int32)
        np.testing.assert_array_equal(output, wide[:, :, :4, :5])

    def test_cross_entropy_of_large_logits_is_finite(self):
        logits = np.array([[-200, 200, -200, 200]], np.float32)
        loss, gradient = run('SigmoidCrossEntropyLoss', [logits, np.array([[0, 1, 1, 0]], np.int32)], np.array(1, np.float32))
        self.assertAlmostEqual(float(loss), 100.0, places=4)
        np.testing.assert_allclose(gradient, [[0, 0, -0.25, 0.25]], atol=1e-7)

    def test_smooth_l1_of_no_rows_has_no_mean(self):
        with np.errstate(invalid='ignore'):
            loss, gradient = run('SmoothL1Loss', [numbers(0, 4)] * 4, np.array(1, np.float32))
        self.assertTrue(np.isnan(loss))
        self.assertEqual(gradient.shape, (0, 4))

    def test_what_does_not_fit_is_refused_by_name(self):
        four = numbers(2, 4)
        for name, inputs in [
            ('SpatialNarrowAs', [numbers(1, 2, 3, 4), numbers(1, 2, 3, 5)]),
            ('SpatialNarrowAs', [numbers(1, 2, 3, 4), numbers(1, 2, 4, 4)]),
            ('SpatialNarrowAs', [numbers(2, 2, 3, 4), numbers(1, 2, 3, 4)]),
            ('SpatialNarrowAs', [numbers(1, 3, 3, 4), numbers(1, 2, 3, 4)]),
            ('SmoothL1Loss', [four, numbers(4, 2), four, four]),
            ('SmoothL1Loss', [four, numbers(2, 3), four, four]),
            ('SmoothL1Loss', [four, four, numbers(2, 3), four]),
            ('SmoothL1Loss', [four, four, four, numbers(2, 3)]),
            ('SigmoidCrossEntropyLoss', [four, labels(2, 3)]),
            ('BatchPermutation', [four, np.zeros(3, np.int32)]),
            ('SampleAs', [four, np.ones(3, np.int32)]),
        ]:
            with self.assertRaisesRegexp(Exception, name):
                run(name, inputs)


for _case, (_name, _inputs, _arguments) in sorted(CASES.items()):
    setattr(OperatorTest, 'test_%s' % _case,
            lambda self, given=(_name, _inputs, _arguments): self.check(*given))


class NetworkTest(unittest.TestCase):
    def test_rois_of_no_level_pass_through_the_pyramid(self):
        """As in Detectron: RoIAlign (Caffe2's own) on each level, one of them without a RoI, then back in order."""
        workspace.ResetWorkspace()
        rois = {'2': [[0, 1, 1, 9, 9], [0, 2, 2, 7, 5]], '3': np.zeros((0, 5)), '4': [[0, 0, 0, 14, 14]]}
        net, pooled = core.Net('pyramid'), []
        for level, (boxes, size) in zip('234', zip([rois[one] for one in '234'], (16, 8, 4))):
            workspace.FeedBlob('map' + level, numbers(1, 3, size, size))
            workspace.FeedBlob('rois' + level, np.array(boxes, np.float32).reshape(-1, 5))
            pooled.append(net.RoIAlign(['map' + level, 'rois' + level], 'pooled' + level, pooled_h=2, pooled_w=2,
                                       spatial_scale=size / 16, sampling_ratio=2))
        workspace.FeedBlob('order', np.array([2, 0, 1], np.int32))
        shuffled, _ = net.Concat(pooled, ['shuffled', 'sizes'], axis=0)
        output = net.BatchPermutation([shuffled, 'order'], 'output')
        workspace.FeedBlob('d_output', numbers(3, 3, 2, 2))
        gradients = net.AddGradientOperators({output: net.AddExternalInput('d_output')})
        workspace.RunNetOnce(net)
        np.testing.assert_array_equal(workspace.FetchBlob('output')[0], workspace.FetchBlob('pooled4')[0])
        touched = dict((level, np.abs(workspace.FetchBlob(str(gradients['map' + level]))).sum()) for level in '234')
        self.assertTrue(touched['2'] > 0 and touched['4'] > 0, touched)
        self.assertEqual(touched['3'], 0)

    def test_networks_that_cannot_run_on_the_cpu_say_so(self):
        for name, network in cpu_operators.WITHOUT_CPU_VERSION.items():
            with self.assertRaises(cpu_operators.NotOnTheCPU) as caught:
                getattr(core.Net('test'), name)(['X'], ['Y'])
            self.assertIn('%s (%s), which has no CPU version' % (name, network), str(caught.exception))


class DeviceTest(unittest.TestCase):
    def test_every_device_is_the_cpu(self):
        devices = [core.DeviceOption(caffe2_pb2.CUDA, 0), core.DeviceOption(caffe2_pb2.CUDA), muji.OnGPU(0),
                   core.DeviceOption(caffe2_pb2.CPU), core.DeviceOption(device_type=caffe2_pb2.CUDA, device_id=0)]
        self.assertEqual([device.device_type for device in devices], [caffe2_pb2.CPU] * len(devices))
        with core.NameScope('gpu_0'), core.DeviceScope(core.DeviceOption(caffe2_pb2.CUDA, 0)):
            workspace.RunOperatorOnce(core.CreateOperator('ConstantFill', [], ['one'], shape=[1], value=1.0))
        self.assertEqual(workspace.FetchBlob('gpu_0/one'), [1])

    def test_a_seed_is_kept(self):
        self.assertEqual(core.DeviceOption(caffe2_pb2.CUDA, 0, random_seed=7).random_seed, 7)

    def test_a_second_gpu_is_refused(self):
        for ask in (lambda: core.DeviceOption(caffe2_pb2.CUDA, 1), lambda: muji.OnGPU(1)):
            with self.assertRaisesRegexp(ValueError, 'GPU 1 was asked for: set NUM_GPUS to 1'):
                ask()

    def test_the_log_reads_no_gpu_memory(self):
        self.assertEqual(utils.GetGPUMemoryUsageStats()['max_by_gpu'][:1].max(), 0)


if __name__ == '__main__':
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=2'])
    cpu_operators.use_cpu()
    unittest.main()
