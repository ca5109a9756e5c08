"""Kernels of other projects, an adapter for each: it imports the library at the top and calls its public function."""
