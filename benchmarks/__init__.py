"""The speed of this project compared with its alternatives: ``python -m benchmarks``."""
