"""``Spec``: a network is its specification, which is stored, opened and compared."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.networks import MeanBackEnd, random_variables
from vone_jax import convert, models, v1

SIDE = 32


def stored(spec):
    """The specification after its way through a file."""
    return models.from_json(models.Spec, json.loads(json.dumps(models.to_json(spec))), "spec")


def other_fields(spec):
    """For each field and option that a network has, another value than its default."""
    yield from ({"num_classes": 7}, {"image_size": 64}, {"in_channels": 1}, {"width": 12})
    if spec.front:
        given = dataclasses.replace(spec.v1, k_exc=3.0, noise=v1.GaussianNoise(0.5))
        yield {"v1": given}
        yield {"v1": dataclasses.replace(spec.v1, bank=spec.v1.gabor_parameters())}
        yield {"learned_normalization": v1.GDN()}
    else:
        yield {"mean": (0.1,) * 3}
        yield {"std": (0.3,) * 3}
        yield {"stem_size": 224}
        yield {"stem_gain": 2.0, "stem_noise": v1.FanoNoise()}
        yield {"front_end": models.ConvStem((4, 8), stride=2)}
    if spec.front == "ev_":
        cells = dataclasses.replace(spec.subcortical, light_adaptation=False)
        yield {"subcortical": cells}
    options = {"depth": 3, "heads": 1, "patch_size": 8, "drop_path": 0.25}
    if isinstance(spec.options, models.ConvNeXt):
        options |= {"depth": (1, 2)}
    for name in {field.name for field in dataclasses.fields(spec.options)} & options.keys():
        yield {"options": dataclasses.replace(spec.options, **{name: options[name]})}
    if isinstance(spec.options, models.Trunk):
        attached = dataclasses.replace(spec.options, attachment="conv_stem", stem_width=None)
        yield {"options": attached}
        if not spec.front:
            yield {"options": dataclasses.replace(attached, stem_width=5)}


@pytest.mark.parametrize("name", models.list_models())
def test_saving_and_opening_give_an_equal_spec(name):
    """For every name, and for each field and option of it."""
    whole = models.Spec(name, 5, SIDE).complete()
    assert stored(whole) == whole and hash(stored(whole)) == hash(whole)
    seen = {whole}
    for fields in other_fields(whole):
        other = models.Spec(**{"name": name, "num_classes": 5, "image_size": SIDE, **fields})
        other = other.complete()
        assert stored(other) == other and other.build().spec == other
        assert other not in seen, fields
        seen.add(other)


@pytest.mark.parametrize("name", models.list_models())
def test_a_folder_gives_an_equal_spec(name, tmp_path):
    model = models.create(name, 5, SIDE, width=8)
    variables = random_variables(model)
    convert.save_folder(tmp_path, model, variables)
    opened, read = convert.load_folder(tmp_path)
    assert opened == model
    for ours, theirs in zip(jax.tree.leaves(variables), jax.tree.leaves(read), strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_what_is_left_out_and_what_is_said_make_one_network():
    said = models.Spec("resnet18", 10, 32, 3, width=64, mean=0.5, std=(0.25,))
    whole = said.complete()
    assert (whole.mean, whole.std, whole.stem_size) == ((0.5,) * 3, (0.25,) * 3, 32)
    assert whole.build() == said.build() == models.create("resnet18", 10, 32, mean=0.5, std=0.25)
    assert whole.complete() is whole
    assert models.create("resnet18", 10, 32).spec.num_classes == 10
    assert models.Spec("resnet18").build().spec.num_classes == 1000


def test_another_number_of_logits_than_the_spec_says_is_refused():
    model = models.create("resnet18", 5, SIDE, back_end=MeanBackEnd(3))
    with pytest.raises(ValueError, match="num_classes is 5, but the back end has 3"):
        random_variables(model)
