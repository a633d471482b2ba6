"""Options: freezing, merging, old names."""

from __future__ import absolute_import, division, print_function

import copy
import tempfile
import unittest

from detectron.core import config
from detectron.core.config import cfg
from detectron.utils import env
from detectron.utils.collections import AttrDict


class TestAttrDict(unittest.TestCase):
    def test_frozen_options_cannot_be_set_not_even_after_yaml(self):
        options = AttrDict(A=AttrDict(B=1))
        options.immutable(True)
        for frozen in (options, copy.deepcopy(options), config.load_cfg(env.yaml_dump(options))):
            self.assertTrue(frozen.is_immutable())
            with self.assertRaises(AttributeError):
                frozen.A.B = 2
        options.immutable(False)
        options.A.B = 2
        self.assertEqual(options['A']['B'], 2)


class TestConfig(unittest.TestCase):
    def setUp(self):
        saved = copy.deepcopy(cfg)
        self.addCleanup(lambda: config.merge_cfg_from_cfg(saved))

    def test_merge_from_options(self):
        config.merge_cfg_from_cfg({'MODEL': {'TYPE': 'other'}, 'TRAIN': {'SCALES': [100]}})
        self.assertEqual((cfg.MODEL.TYPE, cfg.TRAIN.SCALES), ('other', (100,)))

    def test_merge_from_file(self):
        with tempfile.NamedTemporaryFile() as stream:
            env.yaml_dump(AttrDict(MODEL=AttrDict(TYPE='from file')), stream)
            config.merge_cfg_from_file(stream.name)
        self.assertEqual(cfg.MODEL.TYPE, 'from file')

    def test_merge_from_list(self):
        config.merge_cfg_from_list(['TRAIN.SCALES', '(100, )', 'MODEL.TYPE', u'other', 'NUM_GPUS', 2])
        self.assertEqual((cfg.TRAIN.SCALES, cfg.MODEL.TYPE, cfg.NUM_GPUS), ((100,), 'other', 2))

    def test_unknown_option_and_wrong_type_are_errors(self):
        self.assertRaises(KeyError, config.merge_cfg_from_cfg, {'TRAIN': {'NO_SUCH': 1}})
        self.assertRaises(ValueError, config.merge_cfg_from_cfg, {'TRAIN': {'SCALES': 1}})

    def test_deprecated_option_is_ignored(self):
        config.merge_cfg_from_cfg({'MODEL': {'DILATION': 2}})
        config.merge_cfg_from_list(['FINAL_MSG', 'x'])
        self.assertNotIn('DILATION', cfg.MODEL)

    def test_renamed_option_is_an_error(self):
        self.assertRaises(KeyError, config.merge_cfg_from_cfg, {'EXAMPLE': {'RENAMED': {'KEY': 'x'}}})
        self.assertRaises(KeyError, config.merge_cfg_from_list, ['EXAMPLE.RENAMED.KEY', 'x'])


if __name__ == '__main__':
    unittest.main()
