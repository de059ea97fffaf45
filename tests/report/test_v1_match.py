"""V1 match against robustness: pairs, correlations with their intervals, files, and errors."""

import csv
import dataclasses
import io
import itertools

import numpy as np
import pytest
from scipy import stats

from tests.report.layers import layer
from tests.results import built
from vone_jax import report, results
from vone_jax.report import v1_match

ROBUST = (0.1, 0.2, 0.5, 0.4, 0.6, 0.8)
SCORED = ("pref_or", "peak_sf")


def permuted(x, y):
    """The p values of all orders, by Pearson and Spearman."""
    orders = np.array(list(itertools.permutations(y)))
    for sides in ((x, orders), (stats.rankdata(x), stats.rankdata(orders, axis=1))):
        every = np.abs([np.corrcoef(sides[0], order)[0, 1] for order in sides[1]])
        yield np.mean(every >= every[0] - 1e-9)


def member(place, robust, match, **shares):
    """A network with two layers, of which the stem is more V1-like."""
    of = built.network()
    accuracies = {"clean": 0.9, "linf": (robust, robust / 2, 0.0), "l2": (robust, 0.0)}
    made = built.measure("resnet18", accuracies | {"l1": (robust,)} | shares)
    made.append(layer(of, "deep", dict.fromkeys(SCORED, 0.1)))
    scores = dict.fromkeys(SCORED, match) | {"sf_selective": 1.0}
    made.append(layer(of, "stem", scores))
    return built.run(made, f"net{place}", label=f"ResNet-18 (net{place})")


@pytest.fixture(scope="module")
def pool():
    """Six networks, the more V1-like the more robust but for one."""
    return [member(place, robust, 0.3 + 0.1 * place) for place, robust in enumerate(ROBUST)]


def test_the_best_layer_is_paired_with_weak_radii(pool):
    match = v1_match.match(pool, weakest=1)
    assert match.radii == (("linf", "1/255"), ("l2", "0.15"), ("l1", "40"))
    # The third property is not scored in all layers.
    assert len(match.properties) == 2
    assert set(match.networks["layer"]) == {"stem"}
    assert match.networks["v1_match"].tolist() == pytest.approx(np.arange(3, 9) / 10)
    assert match.networks["robust"].tolist() == pytest.approx(ROBUST)
    pearson, spearman = match.correlations
    x = np.arange(6)
    assert pearson.value == pytest.approx(stats.pearsonr(x, ROBUST)[0])
    assert spearman.value == pytest.approx(stats.spearmanr(x, ROBUST)[0])
    assert (pearson.p, spearman.p) == pytest.approx(tuple(permuted(x, ROBUST)))
    assert pearson.low < pearson.value < pearson.high <= 1


def test_a_stronger_attack_on_one_network_does_not_make_it_look_weak(pool):
    """Controls and other settings that only some have are left out."""
    usual = pool[5].of_kind("attack")[0]
    extra = [
        built.accuracy(built.attacked("linf", 1 / 255, **fields), 0.1, name=name)
        for name, fields in (("x", {"steps": 256}), ("y", {"noise": "none"}))
    ]
    assert usual.attack.eps == 1 / 255
    strong = built.run([*pool[5].results, *extra], "net5")
    match = v1_match.match([*pool[:5], strong], weakest=1)
    assert match.networks["robust"][5] == pytest.approx(0.8)
    assert "steps=64" in match.attacks["linf"]


def test_an_attack_in_another_way_at_one_radius_does_not_take_the_place_of_a_ladder(pool):
    """Its name comes later in the alphabet than that of the usual attack."""
    square = built.accuracy(built.attacked("linf", 1 / 255, name="Square"), 0.1, name="square")
    more = [built.run([*run.results, square], run.name) for run in pool]
    match = v1_match.match(more, weakest=1)
    assert match.attacks["linf"].startswith("PGD")
    assert match.networks["robust"].tolist() == pytest.approx(ROBUST)


def test_controls_and_attacks_on_fewer_images_do_not_count(pool):
    """The order does not matter: they may come before the usual attack or after it."""
    first = built.attacked("linf", 1 / 255)
    control = built.accuracy(dataclasses.replace(first, attack_noise="none"), 0.9, name="a")
    few = built.accuracy(first, built.answers(0.9, 50), name="z")
    noisy = layer(built.network(test_noise=built.NOISE), "stem", dict.fromkeys(SCORED, 1.0))
    made = [control, *pool[0].results, few, dataclasses.replace(noisy, name="physiology-stem-test")]
    match = v1_match.match([built.run(made, "net0"), *pool[1:]], weakest=1)
    usual = v1_match.match(pool, weakest=1)
    for column in ("robust", "v1_match"):
        assert match.networks[column].tolist() == usual.networks[column].tolist()


def test_a_radius_of_zero_is_no_attack(pool):
    steps = {"step_size": None, "step_rule": "eps/32"}
    more = []
    for run in pool:
        made = [each for each in run.results if "linf" not in each.name]
        made += [
            built.accuracy(built.attacked("linf", eps, **steps), 0.5, name=f"{eps}")
            for eps in (0.0, 1 / 255)
        ]
        more.append(built.run(made, run.name))
    assert v1_match.match(more, weakest=1).radii[0] == ("linf", "1/255")


@pytest.mark.parametrize("others", [True, False])
def test_a_layer_without_sensible_rates_counts_only_if_there_is_no_other(pool, others):
    *rest, stem = pool[0].results
    rate = dataclasses.replace(stem.scores.properties["max_noise"], name="max_dc", median=70.0)
    properties = {**stem.scores.properties, "max_dc": rate}
    offset = layer(built.network(), "stem", properties=properties)
    made = [*(each for each in rest if others or each.scores is None), offset]
    match = v1_match.match([built.run(made, "net0"), *pool[1:]], weakest=1)
    assert match.networks["layer"].tolist() == ["deep" if others else "stem", *["stem"] * 5]


def test_the_units_are_the_fewest_behind_a_score(pool):
    (stem,) = (each for each in pool[0].results if each.name == "physiology-stem")
    properties = dict(stem.scores.properties)
    few = dataclasses.replace(properties["peak_sf"], units=30)
    scores = dataclasses.replace(stem.scores, properties=properties | {"peak_sf": few})
    changed = dataclasses.replace(stem.measured, scores=scores)
    made = [each for each in pool[0].results if each is not stem]
    made.append(dataclasses.replace(stem, measured=changed))
    match = v1_match.match([built.run(made, "net0"), *pool[1:]], weakest=1)
    assert match.networks["units"].tolist() == [30, *[120] * 5]


def test_a_network_whose_images_are_not_known_has_no_interval(pool):
    bare = built.change(pool[0], arrays={})
    match = v1_match.match([bare, *pool[1:]], weakest=1)
    (rows,) = match.chart()["datasets"].values()
    assert rows[0]["low"] == rows[0]["robust"] == rows[0]["high"]
    assert all(row["low"] < row["robust"] < row["high"] for row in rows[1:])
    (line,) = [line for line in match.to_markdown().splitlines() if "| net0 |" in line]
    assert line.endswith("| 90.0 | 10.0 |")


def test_networks_on_different_images_or_classes_are_told(pool):
    told = v1_match.match(pool, weakest=1).to_markdown()
    assert "different images" not in told and "The networks have" not in told

    def moved(run, images, norms=("linf", "l2", "l1"), **fields):
        """The run with its attacks in some norms on images further on in the data set."""
        made = list(run.results)
        for place, one in enumerate(made):
            if one.kind == "attack" and one.attack.norm in norms:
                arrays = one.arrays | {"index": one.arrays["index"] + images}
                made[place] = built.change(one, arrays=arrays, **fields)
        return built.run(made, run.name)

    told = "The networks were attacked on different images, 100 of them."
    last = pool[5]
    assert told in v1_match.match([*pool[:5], moved(last, 100)], weakest=1).to_markdown()
    other = moved(last, 0, class_names=("cat", "dog"))
    told = v1_match.match([*pool[:5], other], weakest=1).to_markdown()
    assert "The networks have 2 and 10 classes." in told and "different images" not in told
    many = {"examples": 1200, "class_names": tuple(map(str, range(1000)))}
    made = [layer(built.network(), "stem", dict.fromkeys(SCORED, 0.8), units=1500)]
    made += built.measure("resnet18", {norm: (0.8,) for norm in ("linf", "l2", "l1")}, **many)
    told = v1_match.match([*pool[:5], built.run(made, "net5")], weakest=1).to_markdown()
    assert "different images, 100 to 1,200 of them. The networks have 10 and 1,000 cl" in told
    assert "| stem | 1,500 |" in told
    # Other images at one radius, the same for all networks.
    few = [moved(run, 7, ("l2",)) for run in pool]
    assert "different images" not in v1_match.match(few, weakest=1).to_markdown()


def test_means_that_differ_by_rounding_are_tied():
    exact, rounded = [0.1, 0.3, 0.3, 0.5, 0.4], [0.1, 0.3, 0.1 + 0.2, 0.5, 0.4]
    other = [0.2, 0.5, 0.1, 0.4, 0.3]
    assert rounded[1] != rounded[2]
    assert v1_match.correlations(rounded, other) == v1_match.correlations(exact, other)
    with pytest.raises(results.ResultError, match="have the same robust accuracy, 0.3"):
        v1_match.correlations(other, [0.3, 0.1 + 0.2, 0.3, 0.3, 0.3])


def test_intervals_and_p_values_are_those_of_scipy():
    rng = np.random.default_rng(4)
    x = rng.standard_normal(40)
    y = x + rng.standard_normal(40)
    pearson, spearman = measured = v1_match.correlations(x.tolist(), y.tolist())
    by_scipy = stats.pearsonr(x, y)
    assert (pearson.low, pearson.high) == pytest.approx(tuple(by_scipy.confidence_interval()))
    # None of 10,000 permutations is as extreme; the data themselves count as one, on either side.
    assert by_scipy.pvalue < 1e-4 and pearson.p == pytest.approx(2e-4, rel=0.01)
    # Bonett and Wright's interval is a little wider than a bootstrap.
    resampled = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b)[0], paired=True, vectorized=False,
        n_resamples=1000, method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (spearman.low, spearman.high) == pytest.approx(tuple(resampled), abs=0.06)
    assert measured == v1_match.correlations(x.tolist(), y.tolist())


def test_five_networks_in_perfect_order_are_little_evidence():
    """Two of the 120 orders are as extreme."""
    pearson, spearman = v1_match.correlations([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 9.0])
    assert spearman.value == spearman.high == 1 and spearman.p == pytest.approx(2 / 120)
    assert spearman.low < 0.3
    by_scipy = stats.pearsonr([1, 2, 3, 4, 5], [1, 2, 3, 4, 9]).confidence_interval()
    assert (pearson.low, pearson.high) == pytest.approx(tuple(by_scipy))
    pearson, _ = v1_match.correlations([1, 2, 3, 4, 5], [1.0, 2.0, 3.1, 4.0, 5.0])
    assert pearson.low > 0.9
    pearson, _ = v1_match.correlations([1, 2, 3, 4, 5], [2.0, 4.0, 6.0, 8.0, 10.0])
    assert pearson.low < 0.3


def test_intervals_cover_what_they_say():
    """The pools have 8 networks and a true correlation of 0.5."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        x, e = rng.standard_normal((2, 8))
        (pearson, _) = v1_match.correlations(x, x + np.sqrt(3) * e)
        covered.append(pearson.low <= 0.5 <= pearson.high)
    assert 0.92 < np.mean(covered) < 0.98


def test_tables_and_figure(pool, tmp_path):
    report.write(results.Runs(pool), tmp_path / "r.html", tmp_path, 1)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "v1_match.csv").read_text())))
    assert [row["layer"] for row in rows] == ["stem"] * 6
    assert float(rows[5]["robust"]) == pytest.approx(0.8) and rows[5]["linf_1/255"] == "0.8"
    text = (tmp_path / "v1_match.md").read_text()
    (line,) = [line for line in text.splitlines() if "| net5 |" in line]
    assert f"| stem | {rows[5]['units']} | 0.800 |" in line and int(rows[5]["units"]) > 0
    assert "with fewer than 100 it is uncertain" in text
    assert "6 networks." in text and "| Pearson | 0.9" in text and "all if they are fewer" in text
    assert text.index("net5") < text.index("net2") < text.index("net3")
    assert (tmp_path / "v1_match.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "v1_match.svg").read_bytes()
    assert drawn.startswith(b"<svg") and b"net5" in drawn and b"Pearson 0.9" in drawn
    assert v1_match.match(pool, 1).to_svg().encode() == drawn


def test_what_is_missing_is_told(pool, tmp_path):
    def fails(runs, weakest, message):
        with pytest.raises(results.ResultError, match=message):
            v1_match.match(runs, weakest)

    fails(pool[:4], 2, "needs at least 5 networks, got 4")
    fails(pool, 2, "attacked at 1 radius in L1, 2 are needed; take fewer")
    fails(pool, 0, "v1_match_radii must be an integer >= 1, got 0")
    bare = built.run(built.measure("resnet18", {"clean": 0.9}), "a bare")
    fails([*pool, bare], 2, r"no scored layer .*bare; .*eval.py 'a bare' --suite physiology")
    scored = built.run([layer(built.network(), "stem")], "bare")
    fails([*pool, scored], 2, r"no attack .*bare; .*--suite linf")
    other = built.measure("resnet18", {"clean": 0.9, "l1": (0.4,)})
    other.append(layer(built.network(), "stem", {"sf_selective": 0.5}))
    fails([*pool, built.run(other, "other")], 1, "no property is scored in all layers")
    moved = built.change(pool[0], dataset="elsewhere")
    fails([moved, *pool[1:]], 1, r"different data sets: elsewhere \(test split\) and .*--source")
    totals = (7, *[8] * (len(pool) - 1))
    changed = [built.change(run, total=n) for run, n in zip(pool, totals, strict=True)]
    fails(changed, 1, r"files of shapes \(test split\) changed between")
    with pytest.raises(results.ResultError, match="all networks have the same V1 match, 1"):
        v1_match.correlations([1.0] * 5, [1.0, 2, 3, 4, 5])
    with pytest.raises(results.ResultError, match="tables_dir must be given"):
        report.write(results.Runs(pool), tmp_path / "r.html", v1_match_radii=1)
