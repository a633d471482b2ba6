"""Caffe2 helpers."""

from __future__ import absolute_import, division, print_function

import subprocess

from caffe2.proto import caffe2_pb2
from caffe2.python import core, dyndep, workspace

from detectron.core.config import cfg
from detectron.utils import env


def import_contrib_ops():
    """NCCL's operators are part of Caffe2's GPU library: nothing to load."""


def import_detectron_ops():
    """Register Detectron's operators."""
    dyndep.InitOpsLibrary(env.get_detectron_ops_lib())


def default_device(gpu_id=0):
    """The given GPU where Caffe2 sees one, else the CPU; either begins at the same random weights each time."""
    if workspace.NumCudaDevices():
        return core.DeviceOption(caffe2_pb2.CUDA, gpu_id, random_seed=cfg.RNG_SEED)
    return core.DeviceOption(caffe2_pb2.CPU, random_seed=cfg.RNG_SEED)


def get_nvidia_info():
    """(output of nvidia-smi or why there is none, CUDA's version, cuDNN's version)."""
    try:
        output = subprocess.check_output(['nvidia-smi'], stderr=subprocess.STDOUT).decode('utf-8').strip()
    except (OSError, subprocess.CalledProcessError) as error:
        output = 'nvidia-smi: %s' % error
    return output, workspace.GetCUDAVersion(), workspace.GetCuDNNVersion()
