raise ImportError("not the cv2 of the stack: " + __file__)
