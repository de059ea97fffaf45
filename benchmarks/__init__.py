"""How fast this project is, side by side with the alternatives: ``python -m benchmarks``."""
