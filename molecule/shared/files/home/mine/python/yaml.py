raise ImportError("not the yaml of the stack: " + __file__)
