"""The real programs as the compiler for TPUs sees them; those tests need its package."""

import json

import jax
import pytest

from benchmarks import chips, compiled, programs
from vone_jax import attacks
from vone_jax import mesh as meshes

# Lines of a program as the compiler prints them, shortened.
PROGRAM = """
  %f.1 = f32[4,8]{1,0} fusion(%a), metadata={op_name="jit(s)/jvp(VOneNet)/_front_end/conv"}, \
backend_config={"estimated_cycles":"2000000"}
  %f.2 = f32[4,8]{1,0} fusion(%a), metadata={op_name="jit(s)/transpose(jvp(VOneNet))/back_end/x"}, \
backend_config={"estimated_cycles":"500000"}
  %f.3 = f32[4]{0} fusion(%a), metadata={op_name="jit(s)/sum"}, \
backend_config={"estimated_cycles":"9999999999999"}
  %all-reduce.1 = (f32[64]{0:T(128)}, bf16[2,3]{1,0}) all-reduce(%b, %c), channel_id=1
  %all-gather-start.1 = f32[8]{0} all-gather-start(%b), channel_id=2
"""


def test_a_program_is_read():
    operations = chips._operations(PROGRAM)
    assert [cycles for cycles, _ in operations] == [2e6, 5e5]
    assert [chips.part_of(module) for _, module in operations] == ["V1", "back end, backward"]
    assert chips._collectives(PROGRAM) == {
        "all-reduce": (1, 64 * 4 + 6 * 2),
        "all-gather": (1, 8 * 4),
    }


# The same of the compiler for an H100, with the body of a loop.
GPU_PROGRAM = """
%body (p: f32[2]) -> f32[2] {
  %fusion.9 = f32[2]{0} fusion(%p), kind=kLoop
}

ENTRY %main (a: f32[64,56,56,48]) -> f32[64,56,56,256] {
  %a = f32[64,56,56,48]{3,2,1,0} parameter(0)
  %k.1 = f32[256,7,7,48]{3,2,1,0} copy(%b)
  %cudnn-conv.1 = (f32[64,56,56,256]{3,2,1,0}, u8[0]{0}) custom-call(%a, %k.1), window={size=7x7}, \
custom_call_target="__cudnn$convForward", metadata={op_name="jit(s)/_front_end/conv"}
  %g.1 = f32[64,10]{1,0} fusion(%c, %d), kind=kCustom, \
backend_config={"kind":"__triton_nested_gemm_fusion"}
  %l.1 = f32[64,10]{1,0} fusion(%g.1), kind=kLoop
  ROOT %t = (f32[64,10]{1,0}) tuple(%l.1)
}
"""


def test_a_program_of_a_gpu_is_read():
    kinds = {"copies": 1, "convolutions": 1, "products": 1, "fusions": 2}
    assert chips._kernels(GPU_PROGRAM) == kinds


def test_every_attack_of_the_package_has_a_program():
    """Those that run another attack are left out: its programs are those of the members."""
    wrappers = {attacks.AutoAttack, attacks.Function, attacks.Strongest, attacks.Transfer}
    bases = {attacks.Attack}
    public = {
        value
        for value in vars(attacks).values()
        if isinstance(value, type) and issubclass(value, attacks.Attack)
    }
    assert {type(attack) for attack in programs.ATTACKS.values()} == public - wrappers - bases


@pytest.mark.parametrize("name", ["block", "forward", "train", "pgd", "corruption contrast"])
def test_programs_of_a_config_fit_their_arguments(name):
    """The training step is that of the config as it stands."""
    mesh = meshes.data_mesh(jax.devices()[:1])
    experiment = programs.experiment_of("quickstart/vone_resnet18")
    program = programs.make(name, programs.Setting(mesh, experiment, images=2))
    expected = experiment.matmul_precision if name == "train" else "highest"
    assert program.precision == expected
    if name != "train":
        (result,) = jax.tree.leaves(jax.eval_shape(program.function, *program.arguments))
        assert result.shape[0] == 2
    else:
        state, _ = jax.eval_shape(program.function, *program.arguments)
        shapes = [
            jax.tree.map(lambda leaf: leaf.shape, each) for each in (state, program.arguments[0])
        ]
        assert shapes[0] == shapes[1]


def test_the_least_time_is_work_over_rates():
    cost = chips.Cost({"V1": 3e6}, 1e12, 8.19e9, 0, 0, {"all-reduce": (1, 100_000_000)}, 0)
    least = cost.least_seconds(chips.CHIPS["v5e"], 4)
    assert least == pytest.approx({"compute": 2e-3, "memory": 1e-2, "links": 0.75e-3})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that compiles small programs for four chips and returns their costs by name."""
    pytest.importorskip("libtpu", reason="the compiler for TPUs is not installed (extra: tpu)")

    def run(*names, **options):
        path = tmp_path_factory.mktemp("compiled") / "costs.json"
        arguments = ["--json", str(path), "--programs", *names]
        for name, value in options.items():
            arguments += [f"--{name}", str(value)]
        assert compiled.main(arguments) == 0
        return {one["program"]: one for one in json.loads(path.read_text())["programs"]}

    return run


@pytest.mark.slow
@pytest.mark.compilers
def test_a_training_step_of_the_published_size(run):
    """The config as it stands: it fits, exchanges sums alone, and V1 takes a small share."""
    cost = run("train", configs="imagenet/vone_resnet50")["train"]
    assert cost["gathers"] == 0
    assert set(cost["collectives"]) == {"all-reduce"}
    # One for each of 52 batch norms and direction.
    assert cost["collectives"]["all-reduce"][0] <= 110
    assert cost["arguments"] + cost["temporaries"] < 3e9
    assert sum(cost["cycles"].values()) < 33e6
    assert cost["cycles"]["V1"] + cost["cycles"]["bottleneck"] < 5e6
    assert not any(part.startswith("V1, back") for part in cost["cycles"])
    # Finiteness, optimiser and loss.
    assert cost["cycles"]["all else"] < 1.7e6


@pytest.mark.slow
@pytest.mark.compilers
def test_all_corruptions_and_the_front_end_stay_on_their_chip(run):
    names = ["block", "block-surround", "forward", *programs.CORRUPTIONS]
    costs = run(*names, configs="quickstart/vone_resnet18", images=2, precision="default")
    assert set(costs) == {*names}
    for name, cost in costs.items():
        assert sum(cost["cycles"].values()) > 0, name
        # At most whether a loop goes on.
        assert sum(size for _, size in cost["collectives"].values()) <= 4, name
        # Gathers with channels as the last axis moved .4 GB (elastic) to 4.3 GB (shot noise).
        assert cost["traffic"] < 3e8 or not name.startswith("corruption"), name


@pytest.mark.slow
@pytest.mark.compilers
def test_all_attacks_compile_and_take_nothing_out_of_large_arrays(run):
    """On a small network without V1, whose gradient takes minutes to compile.

    The images of a chip fill more than a megabyte, from which on gathers are counted. Each chip
    attacks its own images, so chips exchange nothing.
    """
    costs = run(*programs.ATTACKS, configs="cifar10/resnet18", images=96, precision="default")
    assert set(costs) == {*programs.ATTACKS}
    for name, cost in costs.items():
        assert sum(cost["cycles"].values()) > 0, name
        assert cost["gathers"] == 0, name
        assert not cost["collectives"], name
