#!/bin/sh
# Sets up a virtual environment and runs the tests; arguments go to pytest.
#   sh test.sh            everything but the slow tests
#   sh test.sh -m slow    the slow ones
set -eu
cd "$(dirname "$0")"
extras='[dev]'
. ./environment.sh
# One process per core; each file stays in one process, to share what it compiles.
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"
