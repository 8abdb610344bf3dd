"""Benchmarks of lcp against llama.cpp's own tools; see README.md."""
