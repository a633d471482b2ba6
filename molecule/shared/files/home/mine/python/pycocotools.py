raise ImportError("not the pycocotools of the stack: " + __file__)
