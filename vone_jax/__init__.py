"""VOneNets in JAX: networks with a simulated primary visual cortex in front, and their judges."""
