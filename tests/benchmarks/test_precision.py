"""The passes of a matrix unit against sums that can be written down, and what is measured of them.

2^-9 is less than half of the distance of two bfloat16 numbers at 1. So 1 + 2^-9 + 2^-18 has the
parts 1, 2^-9 and 2^-18.
"""

import functools
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec

from benchmarks import precision
from benchmarks.passes import on_matrix_unit, parts
from tests.evaluation.tiny import tiny_job, tiny_trained
from vone_jax import attacks, corruptions, mesh, prng

ONE = jnp.full((1, 1), 1 + 2**-9)
SQUARES = {"default": 1.0, "high": 1 + 2**-8, "highest": 1 + 2**-8 + 2**-18}


def square(x):
    return jnp.matmul(x, x)


@jax.custom_vjp
def with_own_gradient(x):
    return square(x)


with_own_gradient.defvjp(lambda x: (square(x), x), lambda x, g: (2 * jnp.matmul(g, x),))


@jax.custom_jvp
def with_own_tangent(x):
    return square(x)


with_own_tangent.defjvp(lambda xs, ts: (square(xs[0]), jnp.matmul(*xs, *ts)))


def solved(x):
    solve = lambda _, b: jnp.matmul(x, b)  # noqa: E731
    return lax.custom_linear_solve(lambda y: y / x, x, solve, solve)


# Programs whose result is the square of a 1 x 1 matrix, by one product.
PROGRAMS = {
    "product": square,
    "convolution": lambda x: lax.conv(x[None, None], x[None, None], (1, 1), "VALID")[0, 0],
    "einsum": lambda x: jnp.einsum("ij,jk->ik", x, x),
    "compiled": jax.jit(jax.jit(square)),
    "scan": lambda x: lax.scan(lambda c, y: (square(y), None), x, x[None])[0],
    "while": lambda x: lax.while_loop(lambda c: c[1] < 1, lambda c: (square(x), c[1] + 1), (x, 0))[
        0
    ],
    "branch": lambda x: lax.cond(x[0, 0] > 0, square, lambda x: x, x),
    "platform": lambda x: lax.platform_dependent(x, cpu=square, default=lambda x: x),
    "rematerialised": jax.checkpoint(square),
    "own gradient": with_own_gradient,
    "own tangent": with_own_tangent,
    "linear solve": solved,
    "scatter": lambda x: square(x).at[0, 0].add(0.0),
    "vmap": lambda x: jax.vmap(square)(x[None])[0],
    "gradient": jax.grad(lambda x: square(x)[0, 0] / 2),
    "gradient of own": jax.grad(lambda x: with_own_gradient(x)[0, 0] / 2),
}
# The gradient of x^2/2 is x: two products with 1/2, which 1 and 2 parts cut off.
HALVES = {"default": 1.0, "high": 1 + 2**-9, "highest": 1 + 2**-9}


def test_parts_are_the_digits():
    whole = jnp.float32(1 + 2**-9 + 2**-18)
    assert [float(part) for part in parts(whole, 3)] == [1.0, 2**-9, 2**-18]
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    first, second, third = (np.asarray(part) for part in parts(jnp.asarray(values), 3))
    np.testing.assert_array_equal(first, values.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal((first + second) + third, values)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("level", SQUARES)
def test_every_kind_of_program_has_the_passes(name, level):
    expected = (HALVES if name.startswith("gradient") else SQUARES)[level]
    with jax.default_matmul_precision(level):
        computed = on_matrix_unit(PROGRAMS[name])
        assert float(computed(ONE)[0, 0]) == expected
        assert float(jax.jit(computed)(ONE)[0, 0]) == expected


def test_a_gpu_rounds_to_eleven_bits():
    """1 + 2^-9 has eleven bits, but its square does not fit in them; 1 + 2^-12 has more."""
    for level, expected in {"default": 1.0, "high": 1.0, "highest": 1 + 2**-11}.items():
        with jax.default_matmul_precision(level):
            computed = on_matrix_unit(square, "gpu")
            assert float(computed(ONE)[0, 0]) == SQUARES["highest"]
            assert float(computed(jnp.full((1, 1), 1 + 2**-12))[0, 0]) == pytest.approx(
                expected, abs=2**-23
            )


def test_a_product_keeps_the_precision_that_it_asks_for():
    exact = lambda x: jnp.matmul(x, x, precision="highest")  # noqa: E731
    with jax.default_matmul_precision("default"):
        assert float(on_matrix_unit(exact)(ONE)[0, 0]) == SQUARES["highest"]


def test_other_types_stay_as_they_are():
    with jax.default_matmul_precision("default"):
        assert int(on_matrix_unit(square)(jnp.full((1, 1), 1025))[0, 0]) == 1025**2
        half = on_matrix_unit(square)(ONE.astype(jnp.float16))
    assert float(half[0, 0]) == float(np.float16(1 + 2**-9) ** 2)


@pytest.mark.parametrize(
    "form, shapes",
    {
        "product": [(40, 300), (300, 20)],
        "convolution": [(2, 12, 12, 3), (5, 5, 3, 8)],
    }.items(),
)
def test_passes_against_explicit_casts(form, shapes):
    """The oracle sums products of bfloat16 numbers in float64."""
    rng = np.random.default_rng(0)
    operands = [rng.normal(size=shape) for shape in shapes]
    layout = ("NHWC", "HWIO", "NHWC")

    def apply(a, b):
        if form == "product":
            return jnp.matmul(a, b)
        return lax.conv_general_dilated(a, b, (2, 2), [(2, 2), (1, 2)], dimension_numbers=layout)

    def exactly(a, b):
        with jax.enable_x64(True):
            return np.asarray(apply(jnp.asarray(a, jnp.float64), jnp.asarray(b, jnp.float64)))

    a, b = (operand.astype(np.float32) for operand in operands)
    high = [x.astype(ml_dtypes.bfloat16).astype(np.float64) for x in (a, b)]
    low = [
        (x - h).astype(ml_dtypes.bfloat16).astype(np.float64)
        for x, h in zip((a, b), high, strict=True)
    ]
    expected = {
        "default": exactly(*high),
        "high": exactly(*high) + exactly(high[0], low[1]) + exactly(low[0], high[1]),
        "highest": exactly(a, b),
    }
    scale = np.abs(expected["highest"]).max()
    for level, values in expected.items():
        with jax.default_matmul_precision(level):
            computed = on_matrix_unit(apply)(a, b)
        assert np.abs(computed - values).max() < 2e-6 * scale
    assert np.abs(expected["default"] - expected["highest"]).max() > 1e-3 * scale
    assert 1e-7 * scale < np.abs(expected["high"] - expected["highest"]).max() < 1e-4 * scale


def test_what_cannot_be_replaced_is_refused():
    split = jax.shard_map(
        square,
        mesh=mesh.data_mesh(jax.devices()[:1]),
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(),
    )
    with pytest.raises(NotImplementedError, match="shard_map"):
        on_matrix_unit(split)(ONE)
    chosen = functools.partial(jnp.matmul, precision="BF16_BF16_F32")
    with pytest.raises(NotImplementedError, match="got .*BF16"):
        on_matrix_unit(chosen)(ONE, ONE)


@pytest.mark.slow
def test_attacks_and_gradients_of_a_network(tmp_path):
    """Six passes are float32 up to rounding; one pass is not, and three are between them."""
    job = tiny_job(tiny_trained(), tmp_path, draws=2)
    rows = precision.products(job, precision.PRECISIONS)
    for name in ("logits", "gradients"):
        exact, tf32, one, three, six = (rows[level][name] for level in precision.PRECISIONS)
        assert exact == 0 and six < 1e-6 < three < tf32 < one < 0.1
    attack = attacks.PGD("linf", 0.1, steps=3, eot_samples=2)
    rows = precision.attacked(job, attack, ("float32", "highest"))
    assert rows["highest"]["in_float32"]["accuracy"] == rows["float32"]["accuracy"]
    text = precision.markdown(rows)
    assert "| float32 |" in text and "+0.00 ± 0.00" in text


def test_paired_differences():
    """Two of four images lose 1/2 and 1: the mean is -3/8, the standard deviation 0.479."""
    found = precision.paired(np.array([0.5, 1, 0, 1]), np.array([1.0, 1, 1, 1]))
    assert found["difference"] == -0.375 and found["images_changed"] == 2
    assert found["half_width"] == pytest.approx(1.96 * 0.478714 / 2, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in corruptions.NAMES if name != "frost"])
def test_corruptions_do_not_depend_on_the_default(name):
    """Every product in them asks for full precision itself."""
    arrays = corruptions.prepare(name, 3, (64, 64, 3), "imagenet")
    corruption = corruptions.CORRUPTIONS[name]

    def corrupted(keys, images):
        draws = corruption.draw(prng.stream(keys, name), (64, 64, 3), arrays)
        return corruption.apply(draws, images, arrays)

    keys = jax.eval_shape(lambda: prng.example_keys(jax.random.key(0), 2))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    programs = []
    for level in ("default", "highest"):
        with jax.default_matmul_precision(level):
            programs.append(str(jax.make_jaxpr(corrupted)(keys, images)))
    assert programs[0] == programs[1]


@pytest.mark.slow
def test_the_command_trains_and_writes_json(tmp_path, capsys):
    path = tmp_path / "results.json"
    arguments = ["--quick", "--parts", "training", "--configs", "quickstart/resnet18"]
    arguments += ["--seeds", "1", "--precisions", "default", "--json", str(path)]
    assert precision.main(arguments) == 0
    tables = json.loads(path.read_text())["tables"]
    rows = tables["quickstart/resnet18, seed 0"]
    assert rows["default"]["loss"] == pytest.approx(rows["float32"]["loss"], rel=0.01)
    assert rows["default"]["loss"] != rows["float32"]["loss"]
    assert "| default |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--json nowhere/a.json", "--json: the directory of nowhere/a.json does not exist"),
        ("--batch 0", "--batch: must be at least 1, got 0"),
        ("nothere", "there is no network nothere"),
        ("--parts training", "--parts training needs --configs"),
        ("--parts training --configs foo/bar", "no config 'foo/bar'"),
    ],
)
def test_wrong_options_are_named_before_anything_is_measured(options, message, capsys):
    with pytest.raises(SystemExit) as caught:
        precision.main(options.split())
    printed = capsys.readouterr()
    assert caught.value.code == 2 and printed.out == ""
    assert message in printed.err
