"""The options, with Detectron's names and defaults, and how files and command lines change them."""

from __future__ import absolute_import, division, print_function

from ast import literal_eval
import copy
import logging
import os

from detectron.utils import env
from detectron.utils.collections import AttrDict

logger = logging.getLogger(__name__)

cfg = AttrDict(
    MODEL=AttrDict(TYPE='', CONV_BODY='', NUM_CLASSES=-1, FASTER_RCNN=False, MASK_ON=False),
    NUM_GPUS=1,
    SOLVER=AttrDict(BASE_LR=0.001, LR_POLICY='step', GAMMA=0.1, STEPS=[], MAX_ITER=40000, MOMENTUM=0.9,
                    WEIGHT_DECAY=0.0005, WARM_UP_ITERS=500, WARM_UP_FACTOR=1.0 / 3.0),
    TRAIN=AttrDict(WEIGHTS='', DATASETS=(), SCALES=(600,), MAX_SIZE=1000, IMS_PER_BATCH=2, SNAPSHOT_ITERS=20000,
                   AUTO_RESUME=True),
    TEST=AttrDict(WEIGHTS='', DATASETS=(), SCALE=600, MAX_SIZE=1000, FORCE_JSON_DATASET_EVAL=False),
    RNG_SEED=3,
    OUTPUT_DIR='.',
    DOWNLOAD_CACHE='',
)

DEPRECATED = {'FINAL_MSG', 'MODEL.DILATION'}
RENAMED = {'EXAMPLE.RENAMED.KEY': 'EXAMPLE.KEY'}


def load_cfg(text):
    """Options from YAML text or an open file (with PyYAML 3.12, whose `load` still makes objects)."""
    return env.yaml_load(text)


def merge_cfg_from_file(path):
    with open(path) as stream:
        merge_cfg_from_cfg(load_cfg(stream))


def merge_cfg_from_cfg(changes):
    _merge(changes, cfg, '')


def merge_cfg_from_list(pairs):
    """Merge ['TRAIN.SCALES', '(100,)', 'NUM_GPUS', 2]; values are Python literals or strings."""
    if len(pairs) % 2:
        raise ValueError('options come in pairs of a name and a value: %s' % (pairs,))
    for name, value in zip(pairs[::2], pairs[1::2]):
        section, _, key = name.rpartition('.')
        target = cfg
        if not _is_obsolete(name):
            for part in section.split('.') if section else []:
                target = target[part]
            _merge({key: value}, target, section and section + '.')


def _is_obsolete(name):
    if name in RENAMED:
        raise KeyError('%s is now called %s; please change your config' % (name, RENAMED[name]))
    if name in DEPRECATED:
        logger.warning('%s is no longer used', name)
    return name in DEPRECATED


def _merge(changes, target, prefix):
    for key, value in changes.items():
        name = prefix + key
        if _is_obsolete(name):
            continue
        if key not in target:
            if any(old.startswith(name + '.') for old in RENAMED):
                _merge(value, AttrDict(), name + '.')
            raise KeyError('there is no option %s' % name)
        if isinstance(target[key], AttrDict):
            _merge(value, target[key], name + '.')
        else:
            target[key] = _converted(value, target[key], name)


def _converted(value, current, name):
    """The value as a literal if it is the text of one, and of the current value's type."""
    value = copy.deepcopy(value)
    if isinstance(value, type(u'')) or isinstance(value, str):
        try:
            value = literal_eval(value)
        except (SyntaxError, ValueError):
            return str(value)
    if isinstance(value, (list, tuple)) and isinstance(current, (list, tuple)):
        return type(current)(value)
    if type(value) is not type(current):
        raise ValueError('%s is %r, but must be a %s' % (name, value, type(current).__name__))
    return value


def assert_and_infer_cfg(cache_urls=True, make_immutable=True):
    """Check the options and freeze them."""
    if not cfg.MODEL.TYPE or cfg.MODEL.NUM_CLASSES < 2 or cfg.NUM_GPUS < 1:
        raise ValueError('MODEL.TYPE, MODEL.NUM_CLASSES and NUM_GPUS must be set')
    if cache_urls and '://' in cfg.TRAIN.WEIGHTS + cfg.TEST.WEIGHTS:
        raise ValueError('the stand-in downloads no weights; set TRAIN.WEIGHTS and TEST.WEIGHTS to "" or a file')
    if make_immutable:
        cfg.immutable(True)


def get_output_dir(datasets, training=True):
    """<OUTPUT_DIR>/train|test/<datasets joined by ':'>/<MODEL.TYPE>, made if it is not there."""
    names = datasets if isinstance(datasets, str) else ':'.join(datasets)
    path = os.path.join(cfg.OUTPUT_DIR, 'train' if training else 'test', names, cfg.MODEL.TYPE)
    if not os.path.isdir(path):
        os.makedirs(path)
    return path
