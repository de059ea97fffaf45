"""``python -m vone_jax.report``, see ``vone_jax.cli.report``."""

import sys

from vone_jax.cli.report import main

sys.exit(main())
