"""The package as pip installs it: a wheel with its commands and configs, and a quick import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vone_jax

ROOT = Path(__file__).parents[1]


def test_the_public_packages_are_there_on_first_use():
    program = (
        "import sys, vone_jax, vone_jax.cli\n"
        "assert 'jax' not in sys.modules\n"
        "assert {'models', 'attacks', 'open_network', '__version__'} <= set(dir(vone_jax))\n"
        "vone_jax.models.create, vone_jax.open_network\n"
        "late = {'tensorflow_datasets', 'matplotlib', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not late, late\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    assert all(getattr(vone_jax, name) for name in vone_jax.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'modles'"):
        _ = vone_jax.modles


@pytest.mark.slow
def test_a_wheel_has_the_commands_and_the_configs(tmp_path):
    """Into a folder of its own, outside the checkout, with the dependencies of this environment."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("vone_jax-*.whl")
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    environment = os.environ | {"PYTHONPATH": str(target)}

    def run(*command):
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    where = run(sys.executable, "-c", "import vone_jax; print(vone_jax.__file__)").stdout
    assert where.startswith(str(target))
    for name in ("train", "eval", "sweep", "report", "convert"):
        shown = run(sys.executable, target / "bin" / f"vone-{name}", "--help")
        assert shown.returncode == 0, shown.stderr
        assert f"vone-{name}" in shown.stdout and "python" not in shown.stdout.split("\n")[0]
    train = run(sys.executable, target / "bin" / "vone-train", "imagenet/vone_resnet50", "--help")
    assert "vone-train imagenet/vone_resnet50" in train.stdout
    sweep = run(
        *(sys.executable, target / "bin" / "vone-sweep", "laboratory/similarity", "--dry-run"),
    )
    assert "-m vone_jax.cli.train laboratory/similarity:base" in sweep.stdout, sweep.stderr
