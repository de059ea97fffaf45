import pytest

from vone_jax import names
from vone_jax.results import mce

COMMON = names.COMMON_CORRUPTIONS


def table(error):
    """The same error at all severities, from a function of the name."""
    return {name: {severity: error(name) for severity in range(1, 6)} for name in COMMON}


ALEXNET = table(lambda name: mce.ALEXNET_ERRORS[name])


def test_alexnet_itself_has_100():
    # The sum of the published errors, each times its place in the table.
    errors = enumerate(mce.ALEXNET_ERRORS.values(), 1)
    assert sum(place * error for place, error in errors) == pytest.approx(89.720216)
    assert mce.mean_corruption_error(ALEXNET) == pytest.approx(100, abs=1e-9)
    assert mce.mean_corruption_error(ALEXNET, 0.4348) == pytest.approx(100, abs=1e-9)


def test_resnet50_of_the_paper():
    """Table 1 of arXiv:1903.12261 for ResNet-50: mCE 76.7 and the CE, which are rounded."""
    paper = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)
    ces = dict(zip(COMMON, paper, strict=True))
    errors = table(lambda name: ces[name] / 100 * mce.ALEXNET_ERRORS[name])
    assert mce.corruption_errors(errors) == pytest.approx(ces)
    assert mce.mean_corruption_error(errors) == pytest.approx(76.7, abs=0.5)


def test_severities_are_summed_before_the_division():
    """CE = sum over s of E / sum over s of AlexNet's E, by hand for one corruption."""
    errors = table(lambda name: 0.5)
    errors["fog"] = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.9}
    assert mce.corruption_errors(errors)["fog"] == pytest.approx(100 * 1.9 / (5 * 0.819324))
    relative = mce.corruption_errors(errors, 0.1)["fog"]
    assert relative == pytest.approx(100 * (0.38 - 0.1) / (0.819324 - 0.4348))


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({name: ALEXNET[name] for name in COMMON if name != "fog"}, "lacks fog"),
        (ALEXNET | {"fog": {1: 0.5, 2: 0.5, 4: 0.5, 5: 0.5}}, r"\['fog'\] .* got \[1, 2, 4, 5"),
        (ALEXNET | {"jpeg": ALEXNET["fog"]}, "got 'jpeg'"),
        (ALEXNET | {"fog": ALEXNET["fog"] | {2: 55.0}}, r"\['fog'\]\[2\].*got 55.0"),
    ],
)
def test_anything_but_the_15_by_5_errors_is_refused(errors, message):
    with pytest.raises(ValueError, match=message):
        mce.mean_corruption_error(errors)
    with pytest.raises(ValueError, match=message):
        mce.mean_corruption_error(errors, 0.3)
    with pytest.raises(ValueError, match="clean_error.*43.5"):
        mce.mean_corruption_error(ALEXNET, 43.5)
