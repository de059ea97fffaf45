"""Optimisers and schedules against PyTorch itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_optimizer import random_tree

from vone_jax.training import OneCycle, OptimizerConfig
from vone_jax.training.optimizer import learning_rate

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("standard_promotion")]
STEPS = 12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
        ("Adam", {"weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.0, "betas": (0.8, 0.95), "eps": 1e-3}),
    ],
)
@pytest.mark.parametrize("cycle", [False, True])
def test_parameters_are_those_of_pytorch(name, options, cycle):
    """With OneCycleLR also the momentum, or beta 1, that moves with the rate."""
    torch = pytest.importorskip("torch")
    start, gradients = random_tree(0), [random_tree(seed) for seed in range(1, STEPS + 1)]
    leaves, form = jax.tree.flatten(start)
    weights = [torch.nn.Parameter(torch.tensor(leaf, dtype=torch.float64)) for leaf in leaves]
    theirs = getattr(torch.optim, name)(weights, lr=0.05, **options)
    scheduler = None
    if cycle:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.05, total_steps=STEPS)

    beta1, beta2 = options.get("betas", (options.get("momentum", 0.9), 0.999))
    config = OptimizerConfig(
        method=name.lower(),
        learning_rate=0.05,
        momentum=beta1,
        beta2=beta2,
        nesterov=options.get("nesterov", False),
        epsilon=options.get("eps", 1e-8),
        weight_decay=options["weight_decay"],
        **({"schedule": OneCycle()} if cycle else {}),
    )
    rate = learning_rate(config, 1, STEPS)
    ours = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), start)
    state = config.transformation().init(ours)
    for number, gradient in enumerate(gradients):
        for weight, leaf in zip(weights, jax.tree.leaves(gradient), strict=True):
            weight.grad = torch.tensor(leaf, dtype=torch.float64)
        theirs.step()
        if scheduler is not None and number < STEPS - 1:
            scheduler.step()
        step = jnp.int32(number)
        optimizer = config.transformation(rate(step), config.schedule.momentum(step, STEPS))
        gradient = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), gradient)
        updates, state = optimizer.update(gradient, state, ours)
        ours = jax.tree.map(jnp.add, ours, updates)
    expected = jax.tree.unflatten(form, [weight.detach().numpy() for weight in weights])
    close = partial(np.testing.assert_allclose, rtol=3e-5, atol=3e-6)
    jax.tree.map(close, ours, expected)
