"""The published numbers of human observers."""

import pytest

from vone_jax.perception import humans


@pytest.mark.parametrize("curve", [*humans.METAMERS.values(), *humans.DISTORTIONS.values()])
def test_each_level_has_an_accuracy_between_chance_and_one(curve):
    assert len(curve.levels) == len(set(curve.levels)) == len(curve.accuracy)
    # Of 640 trials, the worst level may lie below chance.
    assert all(humans.CHANCE - 0.02 < share < 1 for share in curve.accuracy)
    assert curve.unit and curve.source and curve.observers


def test_recognition_falls_with_depth_and_with_distortion():
    for name in ("AlexNet", "VOneAlexNet", "low-pass AlexNet"):
        shares = humans.METAMERS[name].accuracy
        assert shares[0] == 0.90 and shares[-1] < 0.2
        assert shares[2] > shares[4] > shares[6]
    for curve in humans.DISTORTIONS.values():
        assert curve.accuracy[0] > 0.79 and curve.accuracy[-1] < 0.11
    # V1 in front, or a low-pass filter, keeps metamers recognisable for longer.
    middle = [humans.METAMERS[n].accuracy[4] for n in ("AlexNet", "VOneAlexNet")]
    assert middle == [0.16, 0.52]
