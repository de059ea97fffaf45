"""An experiment: what is trained and how, and its run directory.

``vone_jax.training`` trains experiments and has the public names. A network is opened from a run
directory, so this package stands below ``vone_jax.network``, and ``vone_jax.training`` above.
"""
