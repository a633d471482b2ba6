raise ImportError("not the numpy of the stack: " + __file__)
