"""A stand-in for Detectron: its interfaces on the real Caffe2, written for this project. See README.md."""

STAND_IN = 'This is a stand-in for Detectron, not Detectron: a small network with the same interfaces.'
