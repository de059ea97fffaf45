"""Comparisons, sentences and pictures against numbers worked out by hand."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from report_runs import STRONG, WEAK, edit, write_run

from vone_jax.report import compare, findings, wording
from vone_jax.report.figures import bank, gallery, images, maps
from vone_jax.report.load import load_runs
from vone_jax.report.results import Dataset, Result

DATA = Dataset("d", "test", ("a", "b"))


def result(correct, index=None, interval=(0.0, 1.0), **condition):
    """A result of given per-image probabilities; without an index it has no arrays."""
    arrays = {}
    if index is not None:
        arrays = {"index": np.asarray(index), "probability_correct": np.asarray(correct, float)}
    share = float(np.mean(correct))
    kind = "attack" if condition else "clean"
    return Result(
        None,
        kind,
        "r",
        DATA,
        len(correct),
        condition,
        "fresh",
        "single",
        share,
        interval,
        {},
        arrays,
    )


def test_difference_pairs_images_by_index():
    base = result([1, 0, 0, 1], index=[7, 3, 9, 1])
    other = result([1, 1, 0.5, 1], index=[3, 1, 9, 7])
    item = compare.difference([base], [other])
    change = np.array([1 - 1, 1 - 0, 0.5 - 0, 1 - 1])  # images 7, 3, 9, 1
    half = 1.959964 * change.std(ddof=1) / 2
    assert (item.value, item.paired, item.images) == (change.mean(), True, 4)
    assert (item.low, item.high) == pytest.approx((0.375 - half, 0.375 + half))
    back = compare.difference([other], [base])
    assert (back.value, back.low) == pytest.approx((-item.value, -item.high))


def test_difference_uses_common_images_and_means_over_conditions():
    base = [result([1, 0, 0], index=[0, 1, 2]), result([0, 0, 1], index=[0, 1, 2])]
    other = [result([1, 1, 0], index=[1, 2, 3]), result([1, 0, 0], index=[1, 2, 3])]
    item = compare.difference(base, other)
    assert item.images == 2
    assert item.value == pytest.approx(np.mean([(1 + 1) / 2 - 0, (1 + 0) / 2 - 0.5]))


def test_difference_of_independent_images_is_newcombes():
    """Newcombe 1998, table II, (a): 56/70 against 48/80, method 10."""
    first = result([1] * 56 + [0] * 14, interval=(0.69183, 0.87695))
    second = result([1] * 48 + [0] * 32, interval=(0.49046, 0.70038))
    item = compare.difference([second], [first])
    assert not item.paired
    assert (item.value, item.low, item.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)


def test_unpaired_mean_over_conditions_claims_no_interval():
    item = compare.difference([result([1, 0])] * 2, [result([1, 1])] * 2)
    assert item.value == 0.5 and item.sign == 0 and np.isinf(item.low)


def test_mean_accuracy_interval_is_over_images():
    values = np.array([[1, 0, 1, 1], [1, 0, 0, 1.0]])
    conditions = [result(row, index=range(4)) for row in values]
    mean, low, high = compare.mean_accuracy(conditions)
    half = 1.959964 * values.mean(0).std(ddof=1) / 2
    assert (mean, low, high) == pytest.approx((0.625, max(0, 0.625 - half), min(1, 0.625 + half)))


def make(tmp_path, base, vone, **settings):
    runs = [
        write_run(tmp_path, "base", "resnet18", accuracy=base, **settings),
        write_run(tmp_path, "vone", "vone_resnet18", accuracy=vone, **settings),
    ]
    (item,) = findings.comparisons(load_runs(runs))
    return item


@pytest.mark.parametrize(
    ("base", "vone", "tone", "words"),
    [
        (WEAK, STRONG, "good", "is more robust than ResNet-18 in all 4 attack conditions"),
        (STRONG, WEAK, "bad", "is not more robust than ResNet-18: it is less robust in 4 of 4"),
        (STRONG, STRONG, "bad", "is not more robust"),  # its noise costs a little everywhere
        (
            WEAK | {"linf": (0.5, 0.6, 0.0)},
            STRONG,
            "mixed",
            "is more robust than ResNet-18 in 3 of 4 attack conditions, and less robust in 1",
        ),
    ],
)
def test_verdict(tmp_path, base, vone, tone, words):
    item = make(tmp_path, base, vone)
    assert item.verdict.tone == tone
    assert words in item.verdict.text


def test_verdict_of_equal_networks(tmp_path):
    """Deterministic twins under other names: no difference may be claimed."""
    runs = [
        write_run(tmp_path, "a", "resnet18"),
        write_run(tmp_path, "b", "vone_resnet18"),
    ]
    for path in (runs[0] / "results").glob("*.npz"):
        if not path.stem.startswith("gallery"):
            (runs[1] / "results" / path.name).write_bytes(path.read_bytes())
    for path in (runs[0] / "results").glob("[ac]*.json"):
        other = load_runs([runs[0]])[0].results
        (found,) = [r for r in other if r.name == path.stem]
        keep = ("accuracy", "interval", "sums")
        edit(runs[1] / "results" / path.name, **{name: found.record[name] for name in keep})
    (item,) = findings.comparisons(load_runs(runs))
    assert item.verdict.tone == "neutral"
    assert "is not measurably more robust" in item.verdict.text
    assert {finding.tone for finding in item.findings} == {"neutral"}


def test_below_chance_nothing_is_won(tmp_path):
    """A stochastic network is right by luck where both are broken; that is not robustness."""
    lucky = {"clean": 0.9, "linf": (0.3, 0.3, 0.3), "l2": (0.3, 0.3), "l1": (0.3,)}
    broken = {"clean": 0.9, "linf": (0.0, 0.0, 0.0), "l2": (0.0, 0.0), "l1": (0.0,)}
    item = make(tmp_path, broken, lucky)
    assert item.verdict.text == "Every attack measured breaks both networks."
    assert all(f.tone == "neutral" for f in item.findings if "attacks" in f.text)


def test_few_images_support_no_verdict(tmp_path):
    assert "Too few images" in make(tmp_path, WEAK, STRONG, examples=20).verdict.text


def test_sentences_name_numbers_and_budgets(tmp_path):
    item = make(tmp_path, WEAK, STRONG)
    clean, linf, l2, l1, corruption = (finding.text for finding in item.findings)
    assert clean.startswith("Clean images: V1 costs accuracy") and "90.0\u202f%" in clean
    assert "more robust at 1/255 and 4/255; both at chance or below at 16/255" in linf
    of_vone = compare.curve(item.vone, "linf")
    largest = wording.percent(of_vone[float(f"{4 / 255:.6g}")].accuracy)
    assert f"the gain is largest at 4/255, {largest} against 10.0\u202f%" in linf
    assert l2.startswith("L2 attacks") and l1.startswith("L1 attacks: more robust at 40")
    assert "mean over 2 corruptions" in corruption


def test_strongest_attack_counts_and_frozen_noise_does_not(tmp_path):
    run = write_run(tmp_path, "run", "vone_resnet18", ladder={"l2": {"0.6": 0.6}}, examples=40,
                    accuracy={"clean": 0.9, "l2": (0.5,)})  # fmt: skip
    stem = "attack-l2-0.60000"
    (loaded,) = load_runs([run])
    honest = loaded.of_kind("attack")[0]
    for name, noise, shift in (("fgsm", "fresh", 0.2), ("frozen", "frozen", -0.2)):
        right = np.clip(honest.arrays["probability_correct"] + shift, 0, 1)
        share = float(right.mean())
        (run / "results" / f"{name}.json").write_bytes(
            (run / "results" / f"{stem}.json").read_bytes()
        )
        edit(
            run / "results" / f"{name}.json",
            name=name,
            protocol={"noise": noise, "draws": 10},
            accuracy=share,
            interval=[max(0.0, share - 0.1), min(1.0, share + 0.1)],
            sums={"correct": float(right.sum()), "seen": 40},
            condition=dict(honest.condition) | {"attack": "FGSM(norm='l2', eps=0.6)"},
        )
        np.savez(
            run / "results" / f"{name}.npz", **dict(honest.arrays) | {"probability_correct": right}
        )
    (loaded,) = load_runs([run])
    (counted,) = compare.curve(loaded, "l2").values()
    assert counted.name == stem
    labels = [(row.label, row.detail) for row in compare.rows([loaded]) if row.kind == "attack"]
    assert labels == [("L2 0.6", "FGSM"), ("L2 0.6", "FGSM, frozen noise"), ("L2 0.6", "PGD")]


def test_seeds_are_paired_in_order(tmp_path):
    names = ["resnet18", "vone_resnet18", "resnet18", "vone_resnet18", "vone_resnet18"]
    runs = load_runs(
        write_run(tmp_path, f"run{i}", name, kinds=("clean",)) for i, name in enumerate(names)
    )
    pairs = [(runs.index(base), runs.index(vone)) for base, vone in compare.pairs(runs)]
    assert pairs == [(0, 1), (2, 3), (2, 4)]
    assert [run.label for run in runs][:2] == ["ResNet-18 (run0)", "VOneResNet-18 (run1)"]


def test_attack_settings_are_relative_to_the_budget():
    text = "PGD(norm='linf', eps=0.015, steps=64, step_size=0.00046875, eot_samples=10)"
    item = result([1], norm="linf", eps=0.015, attack=text)
    assert compare.attack_settings(item) == "PGD(steps=64, step_size=eps/32)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.percent(0.8123), "81.2\u202f%"),
        (wording.points(-0.289), "\u221228.9"),
        (wording.points(-0.0001), "0.0"),
        (wording.points(0.031), "+3.1"),
        (wording.listing(["a"]), "a"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
        (wording.words("jpeg_compression"), "JPEG compression"),
        (wording.duration(3725), "1\u202fh 2\u202fmin"),
        (wording.duration(75), "1\u202fmin 15\u202fs"),
        (wording.duration(0.25), "0.25\u202fs"),
        (wording.eps_label({"eps": 0.15}), "0.15"),
        (wording.count(2000, "image"), "2,000 images"),
    ],
)
def test_wording(text, expected):
    assert text == expected


def pixels(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_photograph_keeps_small_images_and_shrinks_large_ones():
    image = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    assert np.array_equal(pixels(images.photograph(image)), np.rint(255 * image))
    assert pixels(images.photograph(np.zeros((300, 150, 1)))).shape == (112, 56, 3)


def test_heat_map_spans_the_colours():
    shown = pixels(images.heat_map(np.array([[0.0, 2.0]]), 0.0, 2.0)).astype(int)
    assert shown[0, 0].sum() < 10 and shown[0, 1].sum() > 600
    images.heat_map(np.zeros((2, 2)), 0.0, 0.0)


def test_gallery_magnifies_the_change_within_grey(tmp_path):
    (run,) = load_runs([write_run(tmp_path, "run", "resnet18", kinds=("clean", "gallery"))])
    (exhibit,) = gallery.exhibits([run])
    assert (exhibit.title, exhibit.factor) == ("L∞ budget 4/255", 20)
    arrays = run.of_kind("gallery")[0].arrays
    assert len(exhibit.cards) == len(arrays["images"])
    card = exhibit.cards[1]
    assert (card.truth, card.attacked[0].before) == ("square", "square")
    change = 0.5 + 20 * (arrays["adversarial"][1] - arrays["images"][1])
    shown = pixels(card.attacked[0].perturbation)[..., 0]
    assert np.abs(shown - 255 * change[..., 0]).max() <= 0.5 + 1e-3


def test_networks_attacked_on_one_image_share_a_card(run_dirs):
    (exhibit,) = gallery.exhibits(load_runs(run_dirs))
    assert [[it.position for it in card.attacked] for card in exhibit.cards] == [[0, 1]] * 6


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.0, 1), (1.0, 1), (0.3, 1), (0.2, 2), (4 / 255, 20), (1e-3, 500)]
)
def test_magnification(largest, factor):
    assert gallery._magnification(largest) == factor


@pytest.fixture(scope="module")
def v1(run_dirs):
    return load_runs([run_dirs[1]])[0].of_kind("v1")[0].arrays


def test_mosaics_show_each_filter_in_its_channel(v1):
    simple, complex_ = bank.mosaics(v1)
    assert simple.description == "8 of 8 simple cells"
    assert complex_.description.startswith("8 of 8 complex cells, each a pair")
    # One row of eight tiles of coarse to fine filters, sorted by orientation.
    shown = pixels(simple.uri)
    side = shown.shape[0] - 4
    first = int(np.argmin(v1["theta"][:8]))
    tile = shown[2 : 2 + side, 2 : 2 + side]
    strength = np.abs(tile.astype(int) - 128).max((0, 1)) > 2
    assert strength.tolist() == [c == v1["channel"][first] for c in range(3)]


def test_histogram_shares(v1):
    """The share of each bin is read out; orientations wrap around 180 degrees."""
    panel = str(bank.histogram_panel(v1, "theta", "x"))
    label = re.search(r'aria-label="([^"]*)"', panel)[1]
    shares = [int(part) for part in re.findall(r": (\d+) %", label)]
    theta = np.where(v1["theta"] > 157.5, v1["theta"] - 180, v1["theta"])
    counts = np.histogram(theta, [-22.5, 22.5, 67.5, 112.5, 157.5])[0]
    assert counts.sum() == 16
    assert shares == [round(100 * count / 16) for count in counts]


def test_histogram_without_a_published_one(v1):
    bare = {name: value for name, value in v1.items() if not name.startswith("published")}
    assert "<svg" in bank.histogram_panel(bare, "sf", "x")


def test_response_maps_cover_frequencies_and_both_kinds(v1):
    cells = maps.response_maps(v1)
    assert [cell.kind for cell in cells] == ["simple"] * 4 + ["complex"] * 4
    frequencies = [float(cell.caption.split()[0]) for cell in cells]
    assert frequencies[:4] == sorted(frequencies[:4])
    assert len({cell.clean for cell in cells}) == 8
    assert all(cell.clean != cell.noisy for cell in cells)


def test_bank_of_one_kind_of_cell(v1):
    only = dict(v1) | {"simple_channels": np.int64(16)}
    assert [mosaic.title for mosaic in bank.mosaics(only)] == ["Simple cells"]
    assert {cell.kind for cell in maps.response_maps(only)} == {"simple"}
