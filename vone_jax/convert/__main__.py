"""The command ``python -m vone_jax.convert``, see ``vone_jax/cli/convert.py``."""

import sys

from vone_jax.cli.convert import main

sys.exit(main())
