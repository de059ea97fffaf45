"""The speed of this project beside that of the alternatives: ``python -m benchmarks``."""
