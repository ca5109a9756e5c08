"""Our own CUDA kernels, step by step: an adapter for each source in ``kernels/cuda``, and their common format."""
