"""Images, mosaics and galleries against the arrays that they show."""

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.page_reader import rendered
from tests.results import built
from tests.results.built import gallery
from vone_jax import results
from vone_jax.report import images, tuning
from vone_jax.report import page as pages


def pixels(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_photograph_keeps_small_images_and_shrinks_large_ones():
    image = np.random.default_rng(0).random((5, 7, 3)).astype(np.float32)
    assert np.array_equal(pixels(images.photograph(image)), np.rint(255 * image))
    assert pixels(images.photograph(np.zeros((300, 150, 1)))).shape == (112, 56, 3)


def test_heat_map_is_magma():
    levels = np.linspace(0, 1, 256)[None]
    shown = pixels(images.heat_map(levels, 1.0)).astype(int)[0]
    assert shown[0].sum() < 10 and shown[-1].sum() > 600
    # Brightness rises all the way.
    assert np.all(np.diff(shown @ [0.3, 0.6, 0.1]) > -1)
    images.heat_map(np.zeros((2, 2)), 0.0)


def test_gallery_magnifies_the_change_within_grey():
    made = gallery([0, 1, 2])
    (exhibit,) = images.galleries([built.run([made])])
    assert (exhibit["title"], exhibit["factor"]) == ("L∞ 4/255", 20)
    card = exhibit["cards"][1]
    (it,) = card["attacked"]
    assert (card["truth"], it["before"], it["after"]) == ("square", "square", "cross")
    assert it["right_before"] and not it["right_after"]
    change = 0.5 + 20 * (made.arrays["adversarial"][1] - made.arrays["images"][1])
    assert np.abs(pixels(it["perturbation"]) - 255 * change).max() <= 0.5 + 1e-3
    assert np.array_equal(pixels(it["adversarial"]), np.rint(255 * made.arrays["adversarial"][1]))


def test_networks_attacked_on_one_image_share_a_card():
    runs = [
        built.run([gallery([0, 1], model=model, seed=seed)], model)
        for seed, model in enumerate(("resnet18", "vone_resnet18"))
    ]
    (exhibit,) = images.galleries(runs)
    assert [[it["position"] for it in card["attacked"]] for card in exhibit["cards"]] == [
        [0, 1]
    ] * 2


@pytest.mark.parametrize(("side", "most"), [(12, 8), (150, 4)])
def test_the_images_shown_are_of_many_classes(side, most):
    labels = [0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]
    (exhibit,) = images.galleries([built.run([gallery(labels, side=side)])])
    shown = [card["truth"] for card in exhibit["cards"]]
    assert shown == list(built.CLASSES[:most])


def test_the_page_says_how_images_were_selected_and_puts_answers_under_their_image():
    made = gallery([0, 1, 2])
    section = rendered([built.run([made])]).find(id="gallery")
    assert "spread over the classes" in section.text and "first" not in section.text
    card = section.of_class("card")[0]
    captions = {}
    for figure in card.all("figure"):
        captions[next(figure.all("img")).attributes["alt"]] = figure.words
    assert captions == {
        "original image, circle": "circle ResNet-18 circle ✓",
        "change made to fool ResNet-18": "change, 20×",
        "attacked image": "attacked square ✗",
    }
    first = built.run([gallery([0, 1], selection="first")])
    (exhibit,) = images.galleries([first])
    assert exhibit["selection"] == "The images are among the first of the data set."
    (exhibit,) = images.galleries([built.run([gallery([1, 1, 1])])])
    assert exhibit["selection"] == "The images are of one class."


def test_galleries_of_one_network_are_told_apart():
    usual = gallery([0, 1], model="vone_resnet18")
    attack = usual.condition.attack
    other = results.Attack("APGD", "linf", attack.eps, {"steps": 9})

    def like(name, **fields):
        return built.change(
            usual, name=name, condition=dataclasses.replace(usual.condition, **fields)
        )

    several = [usual, like("gallery-quiet", attack_noise="none"), like("apgd", attack=other)]
    (exhibit,) = images.galleries([built.run(several)])
    assert [it["label"] for it in exhibit["cards"][0]["attacked"]] == [
        "VOneResNet-18, gallery",
        "VOneResNet-18, gradients without noise",
        "VOneResNet-18, apgd",
    ]
    frozen = dataclasses.replace(built.FRESH, draws=3)
    few = built.change(usual, name="gallery-few", protocol=frozen)
    (exhibit,) = images.galleries([built.run([usual, few])])
    labels = [it["label"] for it in exhibit["cards"][0]["attacked"]]
    assert labels == ["VOneResNet-18, gallery", "VOneResNet-18, gallery-few"]
    page = rendered([built.run([several[1]])])
    told = [e.text for e in page.all("td") if "gradients without noise" in e.text]
    assert len(told) == 1 and told[0].startswith("PGD(")


def test_galleries_of_controls_are_named_and_not_shown():
    usual = gallery([0, 1], model="vone_resnet18")
    quiet = dataclasses.replace(usual.network, test_noise=None)
    control = built.change(usual, name="gallery-test-none", network=quiet)
    section = rendered([built.run([control])]).find(id="gallery")
    assert "VOneResNet-18 (gallery-test-none)" in section.text
    assert "No attacked images" not in section.text and not list(section.all("article"))


def test_a_gallery_without_its_arrays_is_left_out():
    made = gallery([0, 1])
    lost = built.change(made, arrays={})
    run = built.run([lost])
    assert images.galleries([run]) == []
    # It can be made again.
    assert "--suite gallery" in pages._missing([run], True)["gallery"]
    spaced = dataclasses.replace(run, path=Path("a b"), config={"command": "train.py"})
    assert "eval.py 'a b' --suite" in pages._missing([spaced], True)["gallery"]
    assert "gallery" not in pages._missing([built.run([made])], True)


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.0, 1), (1.0, 1), (0.3, 1), (0.2, 2), (4 / 255, 20), (1e-3, 500)]
)
def test_magnification(largest, factor):
    assert images._magnification(largest) == factor


@pytest.fixture(scope="module")
def v1(first_format):
    """The arrays of a Gabor bank of 4 simple and 4 complex cells, on an image with 3 colours."""
    (run,) = results.load([first_format / "tiny"])
    arrays = run.of_kind("v1")[0].arrays
    image = np.repeat(arrays["image"], 3, axis=-1)
    return arrays | {"image": image, "channel": np.arange(8) % 3}


def test_mosaics_show_each_filter_in_its_channel(v1):
    simple, complex_ = images.mosaics(v1)
    assert simple["description"] == "4 of 4 simple cells"
    assert complex_["description"].startswith("4 of 4 complex cells, each a pair")
    # One row of tiles of coarse to fine filters, sorted by orientation.
    shown = pixels(simple["uri"])
    side = shown.shape[0] - 4
    first = int(np.argmin(v1["theta"][:4]))
    tile = shown[2 : 2 + side, 2 : 2 + side]
    strength = np.abs(tile.astype(int) - 128).max((0, 1)) > 2
    assert strength.tolist() == [c == v1["channel"][first] for c in range(3)]
    assert pixels(images.strip(v1)).shape[1] > 32 * 40


def test_a_second_row_of_a_mosaic_stands_below_the_first(v1):
    """Each row has 8 tiles, and grey lines of 2 pixels around them."""
    many = {name: np.repeat(v1[name][:4], 3, axis=0) for name in ("sf", "theta", "channel")}
    many["kernels_in_phase"] = np.ones((12, *v1["kernels_in_phase"].shape[1:]))
    (simple,) = images.mosaics(v1 | many | {"simple_channels": 12})
    shown = pixels(simple["uri"])
    side = (shown.shape[1] - 2) // 8
    assert shown.shape == (2 * side + 2, 8 * side + 2, 3)
    tiles = np.zeros((2, 8), bool)
    tiles[0], tiles[1, :4] = True, True
    inside = (np.arange(8 * side + 2) % side) >= 2
    expected = np.outer(inside[: 2 * side + 2], inside) & np.pad(
        tiles.repeat(side, 0).repeat(side, 1), (0, 2)
    )
    np.testing.assert_array_equal((shown != 128).any(axis=-1), expected)


def test_filters_of_a_channel_that_images_lack_are_grey(v1):
    """The M cells of an EVNet are channel 3."""
    simple, _ = images.mosaics(v1 | {"channel": np.full(8, 3)})
    shown = pixels(simple["uri"]).astype(int)
    side = shown.shape[0] - 4
    tile = shown[2 : 2 + side, 2 : 2 + side]
    assert (tile == tile[..., :1]).all() and np.abs(tile - 128).max() > 100


def test_histogram_shares(v1):
    """The share of each bin is read out; orientations wrap around 180 degrees."""
    figure = tuning.bank_histogram(v1, "theta")
    label = figure.description
    assert "112.5" in figure.svg and "67.5 to 112.5: " in label
    edges, bins = v1["published_theta_edges"], []
    theta = edges[0] + np.mod(v1["theta"] - edges[0], 180)
    for count in np.histogram(theta, edges)[0]:
        bins.append(f"{100 * count / 8:.0f} %")
    assert [part.rsplit(": ")[-1].rstrip(".") for part in label.split(", ")[-len(bins) :]] == bins


@pytest.mark.parametrize("parameter", ["sf", "theta", "nx", "ny"])
def test_histogram_without_a_published_one(v1, parameter):
    bare = {name: value for name, value in v1.items() if not name.startswith("published")}
    assert len(tuning.bank_histogram(bare, parameter).spec["layer"]) == 1
    assert len(tuning.bank_histogram(v1, parameter).spec["layer"]) == 2


def test_response_maps_cover_frequencies_and_both_kinds(v1):
    cells = images.response_maps(v1)
    assert [cell["kind"] for cell in cells] == ["simple"] * 4 + ["complex"] * 4
    frequencies = [float(cell["caption"].split()[0]) for cell in cells]
    assert frequencies[:4] == sorted(frequencies[:4])
    assert len({cell["clean"] for cell in cells}) >= 7
    assert all(cell["clean"] != cell["noisy"] for cell in cells)


def test_the_noise_of_a_front_end_is_that_of_the_network(v1):
    """Networks with the same filters share an entry, also if only one of them has noise."""
    still = {"responses_noisy": v1["responses_clean"]}
    trained = built.network("vone_resnet18", label="noisy")
    never = built.network("vone_resnet18", label="quiet", trained_noise=None, test_noise=None)
    removed = dataclasses.replace(trained, test_noise=None)

    def section_of(*shown):
        runs = [
            built.run([built.result(results.FrontEndCondition(), arrays=v1 | more, of=of)], name)
            for name, of, more in shown
        ]
        return rendered(runs).find(id="v1").words

    noisy, quiet = ("a", trained, {}), ("b", never, still)
    for shown in ((noisy, quiet), (quiet, noisy)):
        text = section_of(*shown)
        assert "with one noise draw, that of noisy." in text
        assert "has no noise" not in text
    assert "with one noise draw. Both" in section_of(noisy)
    assert "This front end has no noise." in section_of(quiet)
    added = dataclasses.replace(never, test_noise=trained.test_noise)
    for shown in ((quiet, ("a", added, {})), (("a", added, {}), quiet)):
        assert "The maps are those of quiet." in section_of(*shown)
    text = section_of(("a", removed, still))
    assert "The maps are those with noise removed." in text and "has no noise" not in text
    assert "noisy, noise removed: 8 cells" in text


def test_bank_of_one_kind_of_cell(v1):
    only = dict(v1) | {"simple_channels": np.int64(8)}
    assert [mosaic["title"] for mosaic in images.mosaics(only)] == ["Simple cells"]
    assert {cell["kind"] for cell in images.response_maps(only)} == {"simple"}


def test_a_published_histogram_is_of_shares():
    """Its counts are of another number of cells."""
    counts = {"published_sf_edges": [0.5, 1.5, 4.0], "published_sf_weights": [30, 10]}
    figure = tuning.bank_histogram({"sf": np.array([1.0, 2.0])} | counts, "sf")
    rows = [row for rows in figure.spec["datasets"].values() for row in rows]
    names = ("published", "this bank")
    shares = {of: [row["share"] for row in rows if row["of"] == of] for of in names}
    # The outline ends with its last share once more.
    assert shares == {"published": [0.75, 0.25, 0.25], "this bank": [0.5, 0.5]}


def test_a_map_tells_the_orientation_of_bars_and_has_room_for_its_noise():
    """A carrier along 60 degrees has bars at 30. Without noise, all responses are 0.5."""
    clean, noisy = np.full((2, 2, 1), 0.5), np.full((2, 2, 1), 1.0)
    arrays = {
        "responses_clean": clean,
        "responses_noisy": noisy,
        "simple_channels": 1,
        "theta": np.array([60.0]),
        "sf": np.array([2.0]),
        "kernels_in_phase": np.ones((1, 3, 3)),
        "image": np.zeros((4, 4, 1)),
        "channel": np.zeros(1),
    }
    (cell,) = images.response_maps(arrays)
    assert cell["caption"] == "2.0 cycles/°, 30°"
    # Both maps have one scale, up to the noise here.
    assert cell["clean"] == images.heat_map(clean[..., 0], 1.0) != cell["noisy"]


def test_of_many_galleries_some_are_chosen_evenly():
    made = []
    for number in range(1, 8):
        one = gallery([0, 1], attack=built.attacked("linf", number / 255).attack)
        made.append(dataclasses.replace(one, name=f"gallery-{number}"))
    titles = [exhibit["title"] for exhibit in images.galleries([built.run(made)])]
    assert titles == ["L∞ 1/255", "L∞ 3/255", "L∞ 5/255", "L∞ 7/255"]


def test_changes_of_several_networks_have_one_factor():
    """That of the largest change, which must stay within grey."""
    weak = gallery([0, 1], model="vone_resnet18")
    weak.arrays["adversarial"] = (weak.arrays["images"] + weak.arrays["adversarial"]) / 2
    for made in ([gallery([0, 1])], [weak, gallery([0, 1])]):
        runs = [built.run([one], str(number)) for number, one in enumerate(made)]
        (exhibit,) = images.galleries(runs)
        assert exhibit["factor"] == 20
