"""Detectron's operators on the CPU, with their gradients, and everything meant for a GPU moved to the CPU.

Detectron's own operators have kernels for CUDA alone: on the CPU they are registered, but say `Not Implemented`.
Here the ones that Faster, Mask and Keypoint R-CNN and RPN need are Python operators on numpy, so that Detectron's
training, unmodified, runs without a GPU: slowly, to rehearse it.

  from caffe2.python import core
  import cpu_operators
  cpu_operators.use_cpu()              # before any network is built
  net.SmoothL1Loss([...], 'loss')      # now a Python operator, which AddGradientOperators can differentiate

What Caffe2 itself has on the CPU (RoIAlign, AffineChannel, SoftmaxWithLoss, GroupNorm, GenerateProposals, ...) stays
Caffe2's. Formulas and corner cases are those of modules/detectron/*.cu in Caffe2's sources (github.com/pytorch/pytorch,
v1.0.1): `f` is an operator's output, `f_gradient` the gradient of its first input; no operator here has another
differentiable input. Arrays are float32 unless said otherwise; shapes are in brackets.
"""

from __future__ import absolute_import, division, print_function

import collections

import numpy as np

# Of networks that cannot run on the CPU: what would be needed, and who asks for it.
WITHOUT_CPU_VERSION = {
    'PSRoIPool': 'R-FCN',
    'SigmoidFocalLoss': 'RetinaNet',
    'SoftmaxFocalLoss': 'RetinaNet',
    'SelectSmoothL1Loss': 'RetinaNet',
    'GroupSpatialSoftmax': 'RetinaNet',
    'RoIPoolF': 'ROI_XFORM_METHOD: RoIPoolF (RoIAlign can)',
}

Operator = collections.namedtuple('Operator', 'forward gradient arguments')


class NotOnTheCPU(NotImplementedError):
    """A network uses an operator that has neither a CPU version in Caffe2 nor one here."""


def spatial_narrow_as(wide, like):
    """The top left corner of `wide` [N, C, H0, W0] that is as high and wide as `like` [N, C, H, W] or [N, H, W].

    `wide` may also be int32 (labels). Raises ValueError where `like` is larger.
    """
    height, width = like.shape[-2:]
    if wide.ndim != 4 or wide.shape[0] != like.shape[0] or like.ndim == 4 and wide.shape[1] != like.shape[1]:
        raise ValueError('SpatialNarrowAs: %s cannot be narrowed to %s' % (wide.shape, like.shape))
    if height > wide.shape[2] or width > wide.shape[3]:
        raise ValueError('SpatialNarrowAs: %s is not as large as %s' % (wide.shape, like.shape))
    return wide[:, :, :height, :width]


def spatial_narrow_as_gradient(wide, like, d_narrow):
    """Zeros outside the corner: what was cut off has no influence."""
    d_wide = np.zeros_like(wide)
    d_wide[:, :, :d_narrow.shape[2], :d_narrow.shape[3]] = d_narrow
    return d_wide


def smooth_l1_loss(predicted, target, inside, outside, beta=1.0, scale=1.0):
    """scale / N * sum(outside * l(inside * (predicted - target))), a scalar; all inputs [N, ...] of one size.

    l(x) = x^2 / (2 beta) where |x| < beta, else |x| - beta / 2. Fast R-CNN (arXiv:1504.08083), equation 3, with beta.
    Without any row the mean is NaN, on a GPU as well.
    """
    difference = _weighted_difference(predicted, target, inside)
    size = np.abs(difference)
    loss = np.where(size < beta, 0.5 * difference ** 2 / beta, size - 0.5 * beta)
    return (outside.reshape(loss.shape) * loss).sum(dtype=np.float32) * _share(scale, target.shape[0])


def smooth_l1_loss_gradient(predicted, target, inside, outside, d_loss, beta=1.0, scale=1.0):
    """d_loss * scale / N * outside * inside * l'(inside * (predicted - target)), in the shape of `predicted`."""
    difference = _weighted_difference(predicted, target, inside)
    slope = np.where(np.abs(difference) < beta, difference / beta, np.sign(difference))
    weight = inside.reshape(slope.shape) * outside.reshape(slope.shape)
    return float(d_loss) * _share(scale, target.shape[0]) * weight * slope


def _weighted_difference(predicted, target, inside):
    shape = predicted.shape
    if shape[:1] != target.shape[:1] or not predicted.size == target.size == inside.size:
        raise ValueError('SmoothL1Loss: predictions %s, targets %s and weights %s are not of one size'
                         % (shape, target.shape, inside.shape))
    return inside.reshape(shape) * (predicted - target.reshape(shape))


def _share(scale, rows):
    """scale / rows; infinite for no rows, as on the GPU: times a sum of nothing it is NaN."""
    return np.float32(scale / rows if rows else np.inf)


def sigmoid_cross_entropy_loss(logits, target, scale=1.0, normalize=1):
    """scale * sum of -log(p) where the target is 1 and -log(1 - p) where it is 0, with p = sigmoid(logits): a scalar.

    `target` (int32, as many as logits, in any shape) is -1 where nothing is to be learnt. With `normalize` the sum is
    divided by the number of the others, at least 1e-5.
    """
    target, counts = _targets(logits, target)
    loss = np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
    total = np.where(counts, loss, 0).sum(dtype=np.float32)
    return total / _normalizer(counts, normalize) * np.float32(scale)


def sigmoid_cross_entropy_loss_gradient(logits, target, d_loss, scale=1.0, normalize=1):
    """d_loss * scale * (sigmoid(logits) - target), divided as the loss is; 0 where the target is -1."""
    target, counts = _targets(logits, target)
    d_logits = np.where(counts, 0.5 + 0.5 * np.tanh(0.5 * logits) - target, 0)  # the tanh of a sigmoid never overflows
    return float(d_loss) * scale / _normalizer(counts, normalize) * d_logits


def _targets(logits, target):
    if logits.size != target.size:
        raise ValueError('SigmoidCrossEntropyLoss: %s logits, but %s targets' % (logits.shape, target.shape))
    target = target.reshape(logits.shape)
    return target.astype(np.float32), target != -1


def _normalizer(counts, normalize):
    return np.float32(max(counts.sum(), 1e-5) if normalize else 1)


def batch_permutation(rows, indices):
    """rows[indices]: `rows` [N, ...] in the order of `indices` [N] int32."""
    if indices.ndim != 1 or len(indices) != len(rows):
        raise ValueError('BatchPermutation: %s rows, but indices %s' % (rows.shape, indices.shape))
    return rows[indices]


def batch_permutation_gradient(rows, indices, d_permuted):
    """Each row's gradient back where the row came from; `indices` is a permutation."""
    d_rows = np.zeros_like(rows)
    d_rows[indices] = d_permuted
    return d_rows


def sample_as(rows, labels):
    """The rows of `rows` [N, ...] whose label (`labels` [N] int32) is above 0."""
    if len(labels) != len(rows):
        raise ValueError('SampleAs: %d rows, but %d labels' % (len(rows), len(labels)))
    return rows[labels.reshape(-1) > 0]


def sample_as_gradient(rows, labels, d_sampled):
    """Zero for the rows that were left out."""
    d_rows = np.zeros_like(rows)
    d_rows[labels.reshape(-1) > 0] = d_sampled
    return d_rows


def upsample_nearest(image, scale=2):
    """`image` [N, C, H, W] (or [C, H, W]) with each pixel `scale` times as high and wide."""
    return image.repeat(scale, axis=-2).repeat(scale, axis=-1)


def upsample_nearest_gradient(image, d_upsampled, scale=2):
    """The sum of the gradients of a pixel's copies."""
    height, width = image.shape[-2:]
    blocks = d_upsampled.reshape(image.shape[:-2] + (height, scale, width, scale))
    return blocks.sum(axis=(-3, -1))


OPERATORS = {
    'SpatialNarrowAs': Operator(spatial_narrow_as, spatial_narrow_as_gradient, ()),
    'SmoothL1Loss': Operator(smooth_l1_loss, smooth_l1_loss_gradient, ('beta', 'scale')),
    'SigmoidCrossEntropyLoss': Operator(
        sigmoid_cross_entropy_loss, sigmoid_cross_entropy_loss_gradient, ('scale', 'normalize')),
    'BatchPermutation': Operator(batch_permutation, batch_permutation_gradient, ()),
    'SampleAs': Operator(sample_as, sample_as_gradient, ()),
    'UpsampleNearest': Operator(upsample_nearest, upsample_nearest_gradient, ('scale',)),
}


def _method(name, operator):
    """A method of caffe2.python.core.Net that adds `operator`, called as Caffe2's own of that name."""

    def add(net, inputs, outputs, **given):
        arguments = dict((key, given[key]) for key in operator.arguments if key in given)

        def forward(tensors, results):
            arrays = [one.data for one in tensors]
            _feed(results[0], operator.forward(*arrays, **arguments), arrays[0])

        def backward(tensors, results):
            # The operator's inputs, its output, and the output's gradient.
            arrays = [one.data for one in tensors]
            _feed(results[0], operator.gradient(*(arrays[:-2] + arrays[-1:]), **arguments), arrays[0])

        given.setdefault('name', name)  # what Detectron's log of the network shows
        lists = [each if isinstance(each, (list, tuple)) else [each] for each in (inputs, outputs)]
        python = net.Python(forward, backward, grad_output_indices=[0], grad_input_indices=[0])
        return python(*lists, **given)

    return add


def _feed(tensor, array, like):
    tensor.feed(np.array(array, dtype=like.dtype, order='C'))


def _refusal(name, network):
    def add(net, *_, **__):
        raise NotOnTheCPU('This network cannot run on the CPU: it uses the operator %s (%s), which has no CPU version. '
                          'FPN and C4 networks of Faster, Mask and Keypoint R-CNN, and RPN, can.' % (name, network))

    return add


def install():
    """Let networks that are built from now on have these operators in place of Detectron's."""
    from caffe2.python import core

    for name, operator in OPERATORS.items():
        setattr(core.Net, name, _method(name, operator))
    for name, network in WITHOUT_CPU_VERSION.items():
        setattr(core.Net, name, _refusal(name, network))


def use_cpu():
    """Run on the CPU what is written for one GPU: `install`, and every device that is asked for becomes the CPU."""
    from caffe2.proto import caffe2_pb2
    from caffe2.python import core, muji, utils

    install()
    device_option = core.DeviceOption

    def cpu(device_type=caffe2_pb2.CPU, device_id=0, *others, **named):
        if device_id:
            raise ValueError('The CPU is one device, and GPU %d was asked for: set NUM_GPUS to 1.' % device_id)
        return device_option(caffe2_pb2.CPU, 0, *others, **named)

    core.DeviceOption = cpu
    muji.OnGPU = lambda gpu_id: cpu(device_id=gpu_id)
    # For the log. The operator behind it: `Cannot create operator of type 'GetGPUMemoryUsage' on the device 'CPU'`.
    utils.GetGPUMemoryUsageStats = lambda: {
        'max_by_gpu': np.zeros(1), 'total_by_gpu': np.zeros(1), 'max_total': 0.0, 'total': 0.0}
