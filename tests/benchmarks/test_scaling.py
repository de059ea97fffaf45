"""The measurements of scaling run, and the paper model says what its inputs imply."""

import types

import jax
import pytest

from benchmarks import paper_model, scaling
from benchmarks.chips import Chip


@pytest.mark.slow
def test_the_work_is_that_of_the_network():
    """ResNet-18 has 11.69 million parameters, 20 batch norms and 1.82e9 products at 224 pixels."""
    done = paper_model.Work("resnet18", 224, "float32")
    assert done.parameters == 11_689_512 and done.batch_norms == 20
    # Two operations a product, forward and twice backward, less the gradient of the images, which
    # the first layer's 0.12e9 products would take, and the products with padding, some 7 %.
    assert done.operations == pytest.approx(2 * (3 * 1.82e9 - 0.12e9), rel=0.1)
    # All float32 outputs of its convolutions, 2.2 million values, are among what is kept.
    assert 4 * 2.2e6 < done.kept < 100e6
    assert paper_model.Work("resnet18", 224, "bfloat16").kept < done.kept


@pytest.mark.slow
def test_copies_of_weights_are_not_kept_for_each_image():
    """The 3x3 kernel of IT alone has 151 MB, and CORnet-S applies it twice."""
    assert paper_model.Work("cornet_s", 224, "float32").kept < 150e6


def test_times_are_work_over_rates():
    done = types.SimpleNamespace(
        operations=3e9, kept=1_000_000, parameters=1_000_000, batch_norms=10
    )
    chip = Chip(clock=1e9, operations=1e12, traffic=1e9, memory=1e9, link=1e9)
    operations, memory, link, waits = paper_model.step_times(done, chip, 8)
    assert operations == pytest.approx(0.024)
    assert memory == pytest.approx(8 * 5e-3)
    assert link == pytest.approx(2 * 255 / 256 * 4e-3)
    # Two waits in each layer.
    assert waits == pytest.approx(20 * 25e-6)
    # The gradients travel during the backward pass.
    assert paper_model.efficiency(operations, memory, link, waits) == pytest.approx(0.04 / 0.0405)
    assert paper_model.efficiency(3.0, 1.0, 4.0, 1.0) == pytest.approx(3 / (3 + 2 + 1))


@pytest.mark.slow
def test_the_host_does_little_more_for_more_devices():
    """A network of a few numbers, so that it compiles soon."""
    watches = [scaling.watched(scaling.SMALL, devices, 5, 4) for devices in (2, 4)]
    assert all(watch.seconds > 0 and watch.host_seconds > 0 for watch in watches)
    two, four = (watch.calls for watch in watches)
    assert two > 100
    # Three arrays a batch are cut into a slice for each device; nothing else is done for each.
    assert four - two < 2 * 12


def test_processes_are_for_the_weak_part_alone(capsys):
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["options", "--distributed", "auto"])
    assert "--distributed is for weak, got options; leave it out" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("part", ["options", "model"])
def test_the_command_runs(part, capsys):
    before = jax.config.jax_compilation_cache_dir
    assert scaling.main([part, "--quick"]) == 0
    assert jax.config.jax_compilation_cache_dir == before
    assert "| ---: |" in capsys.readouterr().out
