"""The keys of an attack: no noise draw serves two purposes."""

import inspect
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import attacks, prng
from vone_jax.attacks import classifier

ROOM = Path(attacks.__file__).parent
# They pass keys on to the classifier for whoever calls them.
CARRIERS = {"draws", "evaluate", "gradient", "logits", "nearest_boundary", "combined", "total"}
MEMBERS = (
    attacks.FAB("linf", 0.1, steps=2, targets=2, eot_samples=3),
    attacks.PGD("linf", 0.1, steps=2, random_start=True, restarts=2, keep="best", eot_samples=2),
    attacks.Square("linf", 0.1, queries=3, restarts=2, eot_samples=2),
)


@pytest.fixture
def keys_by_place(monkeypatch):
    """Keys of the classifier -> the lines of attacks that drew with them, as the program runs."""
    places, original = defaultdict(set), classifier.draws

    def watched(logits_fn, keys, images, count):
        frames = [f for f in inspect.stack() if Path(f.filename).parent == ROOM]
        place = next(f"{f.filename}:{f.lineno}" for f in frames if f.function not in CARRIERS)

        def recorded(draw_keys, images):
            jax.debug.callback(
                lambda words: [places[tuple(key)].add(place) for key in words.tolist()],
                jax.random.key_data(draw_keys),
            )
            return logits_fn(draw_keys, images)

        return original(recorded, keys, images, count)

    monkeypatch.setattr(classifier, "draws", watched)
    return places


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(MEMBERS[0], marks=pytest.mark.slow),
        attacks.Strongest(MEMBERS, choice_draws=4),
        *(
            pytest.param(attack, marks=pytest.mark.slow)
            for attack in (
                attacks.APGD("linf", 0.1, steps=3, loss="targeted_dlr", targets=2, eot_samples=2),
                attacks.APGD("l1", 1.0, steps=10, restarts=2, large_eps_schedule=True),
                attacks.SPSA("linf", 0.1, steps=2, samples=2, eot_samples=2),
                attacks.RandomNoise("l1", 0.1, restarts=2),
                attacks.DeepFool("l2", 0.1, steps=2, eot_samples=2),
                attacks.CW("l2", 0.1, steps=2, binary_search_steps=2, eot_samples=2),
                attacks.DDN("l2", 0.1, steps=2, eot_samples=2),
                attacks.FMN("l1", 0.1, steps=2, eot_samples=2),
            )
        ),
    ],
    ids=lambda attack: f"{type(attack).__name__}-{attack.norm}",
)
def test_no_draw_serves_two_purposes(attack, keys_by_place):
    """Search, confirmation, choice and evaluation: a lucky draw of one must not pass another."""
    five_classes = Partial(problem.centred, jax.random.normal(jax.random.key(3), (50, 5)))

    def noisy(keys, images):
        return toy.with_noise(five_classes, 1.0, keys, images)

    # A classifier of this test alone, so that no program of another test runs.
    noisy = Partial(noisy)
    keys = prng.example_keys(problem.KEY, 4)
    attack(keys, noisy, problem.IMAGES[:4], jnp.zeros(4, jnp.int32))
    jax.effects_barrier()
    assert keys_by_place
    shared = {tuple(sorted(places)) for places in keys_by_place.values() if len(places) > 1}
    assert not shared
    # The stream "judge" belongs to whoever evaluates the result with the same keys.
    judging = prng.stream(keys, "judge")
    judged = {tuple(k) for n in range(20)
              for k in jax.random.key_data(prng.fold(judging, n)).tolist()}  # fmt: skip
    assert not judged & set(keys_by_place)
