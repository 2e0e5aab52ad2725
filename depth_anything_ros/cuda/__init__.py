"""GPU twins of `decode`, `preprocess`, `postprocess`, `scale`, `geometry` and `color`: the same stages between device buffers.

The arithmetic is written once, pixel by pixel, in `image.h` and `pixels.h`; NVRTC compiles it on the robot. Nothing here is
imported unless an engine asks for it, and pycuda only when a GPU is used.
"""
