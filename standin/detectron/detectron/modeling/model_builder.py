"""The stand-in's network: names the largest object of an image and gives its box, as shares of width and height."""

from __future__ import absolute_import, division, print_function

from caffe2.python import brew, core, model_helper

from detectron.core.config import cfg
from detectron.utils import c2


def create(model_type, train=False, gpu_id=0):
    """Build the network; nothing is run. Blobs live in the name scope gpu_<id>, as Detectron's do.

    Inputs: data [N, 3, S, S]; for training also labels [N] int32, boxes [N, 4] and lr [1].
    Outputs: cls_prob [N, NUM_CLASSES], bbox_pred [N, 4]; for training also loss_cls and loss_bbox.
    """
    model = model_helper.ModelHelper(name=model_type)
    with core.NameScope('gpu_%d' % gpu_id), core.DeviceScope(c2.default_device(gpu_id)):
        _add_outputs(model)
        if train:
            _add_training(model)
        else:
            brew.softmax(model, 'cls_score', 'cls_prob')
    return model


def _add_outputs(model):
    body = brew.conv(model, 'data', 'conv1', 3, 8, kernel=7, stride=4, pad=3, weight_init=('MSRAFill', {}))
    body = brew.relu(model, body, body)
    body = brew.conv(model, body, 'conv2', 8, 16, kernel=3, stride=2, pad=1, weight_init=('MSRAFill', {}))
    body = brew.relu(model, body, body)
    pooled = model.net.AveragePool(body, 'pooled', global_pooling=True)
    brew.fc(model, pooled, 'cls_score', 16, cfg.MODEL.NUM_CLASSES)
    brew.fc(model, pooled, 'bbox_pred', 16, 4)


def _add_training(model):
    """Losses, their gradients, and stochastic gradient descent with momentum."""
    _, loss_cls = model.net.SoftmaxWithLoss(['cls_score', 'labels'], ['cls_prob', 'loss_cls'])
    distance = model.net.SquaredL2Distance(['bbox_pred', 'boxes'], 'bbox_distance')
    loss_bbox = model.net.AveragedLoss(distance, 'loss_bbox')
    gradients = model.AddGradientOperators([loss_cls, loss_bbox])
    for parameter in model.GetParams():
        gradient = gradients[str(parameter)]
        momentum = model.param_init_net.ConstantFill(parameter, str(parameter).split('/')[-1] + '_momentum', value=0.0)
        model.net.MomentumSGDUpdate([gradient, momentum, 'lr', parameter], [gradient, momentum, parameter],
                                    momentum=cfg.SOLVER.MOMENTUM)
