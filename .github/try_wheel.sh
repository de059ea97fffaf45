#!/bin/bash
# try_wheel.sh WHEEL: install a wheel in an empty environment, away from the checkout, and use it.
set -euo pipefail
wheel=$(realpath "$1")
place=$(mktemp -d)
cd "$place"
"${PYTHON:-python3}" -m venv empty
empty/bin/python -m pip install --quiet --disable-pip-version-check "$wheel"
for command in train eval sweep report convert; do
    "empty/bin/vone-$command" --help >"$command.txt"
    test -s "$command.txt"
done
grep -q quickstart/vone_resnet18 train.txt
empty/bin/python -c 'import vone_jax; print(vone_jax.__version__, vone_jax.models.list_models()[:3])'
empty/bin/vone-train quickstart/vone_resnet18 --steps 2 --run-dir run
empty/bin/vone-eval run --suite clean v1 --examples 10
empty/bin/vone-sweep laboratory/similarity --dry-run >sweep.txt
empty/bin/vone-report run --out report.html
test -s report.html
