#!/bin/sh
# Sets up a virtual environment, trains a ResNet-18 and its VOneNet on the images that come with the
# project, attacks both, and writes runs/quickstart/report.html. Started again, it goes on where
# it was stopped.
set -eu
cd "$(dirname "$0")"
extras=
. ./environment.sh
runs=runs/quickstart
for network in resnet18 vone_resnet18; do
    .venv/bin/python train.py "quickstart/$network" --run-dir "$runs/$network"
done
for network in resnet18 vone_resnet18; do
    .venv/bin/python eval.py "$runs/$network" --suite quick --examples 100
done
.venv/bin/python -m vone_jax.cli.report "$runs/resnet18" "$runs/vone_resnet18" --out "$runs/report.html"
echo "Open $runs/report.html in a browser."
