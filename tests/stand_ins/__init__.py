"""What stands in for a GPU in tests: a CUDA driver in C, pycuda on top of it, and TensorRT's real Python bindings without their libraries."""
