"""Result files: written, read, and refused where they are damaged."""

import errno
import json
import re

import numpy as np
import pytest

from tests.report import layers
from tests.results import built
from tests.results.built import CLEAN
from vone_jax import attacks, results

MINIMAL = [
    cls
    for cls in vars(attacks).values()
    if isinstance(cls, type)
    and issubclass(cls, attacks.MinimalNormAttack)
    and cls is not attacks.MinimalNormAttack
]

ATTACK = built.attacked("linf", 4 / 255, draws=10, inner={"name": "FGSM", "loss": "margin"})


@pytest.fixture
def directory(tmp_path):
    """A directory with a clean result, an attack and a gallery."""
    results.write(tmp_path, built.accuracy(CLEAN, 0.9, name="clean"))
    noisy = built.network("vone_resnet18")
    results.write(tmp_path, built.accuracy(ATTACK, 0.4, of=noisy, name="attack"))
    results.write(tmp_path, built.gallery([0, 1, 2], attack=ATTACK.attack))
    return tmp_path


def fails(path, *parts):
    with pytest.raises(results.ResultError) as caught:
        results.read(path)
    for part in (path.stem, *parts):
        assert str(part) in str(caught.value)
    return str(caught.value)


def with_arrays(source, directory, change):
    """The path in a directory of a copy of a result with other arrays; None removes one."""
    path = directory / source.name
    path.write_bytes(source.read_bytes())
    with np.load(source.with_suffix(".npz")) as stored:
        arrays = dict(stored) | change
    kept = {name: value for name, value in arrays.items() if value is not None}
    np.savez(path.with_suffix(".npz"), **kept)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("neuronal", "neuronal 0.35, 0.07"),
        ("gaussian", "Gaussian 0.35"),
        ("fano", "Fano factor 0.35"),
    ],
)
def test_noise_in_words(kind, words):
    noise, other = results.Noise(kind, 0.35, 0.07), results.Noise("gaussian", 2.0)
    of = built.network("vone_resnet18", trained_noise=other, test_noise=noise)
    result = built.accuracy(built.attacked("linf", 0.1, noise=noise), 0.5, of=of)
    assert result.protocol_label == f"{words} in place of Gaussian 2, fresh noise, 10 draws"
    assert result.attack_noise_label == f"gradients with {words}"


@pytest.mark.parametrize("name", ["clean", "attack", "gallery"])
def test_a_result_comes_back_as_it_was_written(directory, name):
    path = directory / f"{name}.json"
    read = results.read(path)
    assert read.arrays
    again = directory / "again"
    results.write(again, read)
    assert (again / path.name).read_bytes() == path.read_bytes()
    copied = results.read(again / path.name)
    assert results.to_json(copied) == results.to_json(read)
    assert copied.arrays.keys() == read.arrays.keys()
    if name == "attack":
        assert read.condition == ATTACK
        assert str(read.condition.attacks[0]).endswith("inner=FGSM(loss='margin'))")


def test_the_identity_is_what_was_measured(directory):
    one = results.read(directory / "attack.json")
    same = built.change(one, provenance=results.Provenance(), run="other", measured=one.measured)
    assert same.identity_hash == one.identity_hash
    for field, value in (
        ("eot_samples", 11),
        ("weights", "00000000"),
        ("protocol", results.Protocol("fresh", 11)),
        ("key", results.Key(1, one.key.stream)),
        ("name", "another"),
        ("matmul_precision", "high"),
    ):
        assert built.change(one, **{field: value}).identity_hash != one.identity_hash, field


@pytest.mark.parametrize(
    "device, precision, expected",
    [
        ("1 x cpu (cpu)", "default", "highest"),
        ("4 x TPU v5 lite (tpu)", "default", "default"),
        ("8 x NVIDIA H100 (gpu)", None, ""),
    ],
)
def test_the_precision_of_older_files_is_that_of_their_provenance(
    directory, device, precision, expected
):
    """A CPU had the highest, whatever the default. Where it is not known, all can be continued."""
    path = directory / "attack.json"
    values = json.loads(path.read_text())
    written = results.read(path)
    del values["matmul_precision"]
    values["provenance"]["device"] = device
    if precision is not None:
        values["provenance"]["matmul_precision"] = precision
    path.write_text(json.dumps(values))
    old = results.read(path)
    assert old.matmul_precision == expected
    differing = [] if expected in ("highest", "") else ['matmul_precision is "highest", was "def']
    found = results.differences(written, old)
    assert [text[: len(start)] for text, start in zip(found, differing, strict=True)] == differing


def test_the_identity_of_a_result_does_not_have_the_size_that_older_files_lack():
    one = built.accuracy(CLEAN, 0.9)
    sized = built.accuracy(CLEAN, 0.9, of=built.network(image_size=28))
    assert one.identity_hash == sized.identity_hash


def test_what_differs_in_a_list_is_named_by_its_place():
    def identity(*members):
        of = built.network(config={"members": list(members)})
        return built.accuracy(CLEAN, 0.9, of=of)

    one, two = {"epochs": 0.25, "data": {"seed": 1}}, {"epochs": 0.3, "data": {"seed": 1}}
    assert results.differences(identity(one, two), identity(one, one)) == [
        "network.config.members[1].epochs is 0.3, was 0.25"
    ]
    for ours, theirs in ([(one, two), (one,)], [(one,), (one, two)]):
        named = results.differences(identity(*ours), identity(*theirs))
        assert f"network.config.members.length is {len(ours)}, was {len(theirs)}" in named


def test_a_long_value_that_differs_is_cut():
    one, two = (built.network(config={"names": [name] * 999}) for name in ("cat", "dog"))
    (named,) = results.differences(*(built.accuracy(CLEAN, 0.9, of=of) for of in (one, two)))
    assert named.startswith('network.config.names is ["cat", "cat"') and ', was ["dog"' in named
    assert len(named) < 250
    # The part that is shown differs.
    one, two = (built.network(config={"path": "deep/" * 99 + name}) for name in ("cat", "dog"))
    (named,) = results.differences(*(built.accuracy(CLEAN, 0.9, of=of) for of in (one, two)))
    assert re.fullmatch(r'network.config.path is \.\.\.\S+/cat", was \.\.\.\S+/dog"', named)
    assert len(named) < 250


def test_arrays_that_do_not_belong_to_a_result_are_not_written(tmp_path):
    made = built.accuracy(CLEAN, 0.9)
    made.arrays["probability_correct"] = np.zeros(100)
    with pytest.raises(ValueError, match="not of one evaluation"):
        results.write(tmp_path, made)
    assert not list(tmp_path.iterdir())


def test_a_json_file_stands_for_its_arrays_too(tmp_path, monkeypatch):
    """It is written last, so that a full disk leaves no result without its answers."""

    def full(*arguments, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        results.write(tmp_path, built.accuracy(CLEAN, 0.9))
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: "[1, 2]", "must hold a JSON object, got list"),
        (lambda text: text.replace("300", "NaN", 1), "NaN is not a number"),
        (lambda text: "\udcff\udcfe" + text, "is damaged"),
        (lambda text: "[" * 100_000, "is damaged"),
    ],
    ids=["truncated", "no object", "NaN", "bytes", "nested"],
)
def test_damaged_text(directory, damage, part):
    path = directory / "clean.json"
    path.write_bytes(damage(path.read_text()).encode("utf-8", "surrogateescape"))
    fails(path, part)


def test_a_result_without_its_archive_has_no_arrays(directory):
    (directory / "clean.npz").unlink()
    result = results.read(directory / "clean.json")
    assert result.arrays == {} and result.measured.accuracy == 0.9


def test_truncated_arrays(directory):
    for name in ("clean", "gallery"):
        archive = directory / f"{name}.npz"
        whole = archive.read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 30):
            archive.write_bytes(whole[:length])
            fails(directory / f"{name}.json", archive, "is damaged")
        middle = bytearray(whole)
        middle[whole.index(b"NUMPY") + 150] ^= 0xFF
        archive.write_bytes(bytes(middle))
        fails(directory / f"{name}.json", archive)
        # NumPy takes what does not begin as an archive for a pickle, and advises to trust it.
        for other in (b"text", b"\0" + whole[1:]):
            archive.write_bytes(other)
            assert "pickle" not in fails(directory / f"{name}.json", archive, "is damaged")
        archive.write_bytes(whole)
    np.savez(directory / "clean.npz", index=np.array([{}], dtype=object))
    assert "pickle" not in fails(directory / "clean.json", "clean.npz", "is damaged")


@pytest.mark.parametrize("version", [0, 3, "1", None])
def test_unknown_format(directory, version):
    built.edit(directory / "clean.json", format=version)
    cure = f"reads 1 and 2; move the file out of {directory} if it is no result"
    fails(directory / "clean.json", f"the format {version!r}", cure)


def test_an_unknown_kind_has_an_error_of_its_own(directory):
    built.edit(directory / "clean.json", condition__kind="telepathy")
    fails(directory / "clean.json", "of the kind 'telepathy', which this version does not know")


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("clean", {"measured__accuracy": 1.5}, ["measured.accuracy.accuracy", "1.5"]),
        ("clean", {"measured__accuracy": 0.123}, ["accuracy is 0.123", "correct / seen"]),
        ("clean", {"measured__accuracy": "high"}, ["accuracy", "'high'"]),
        ("clean", {"measured__accuracy": None}, ["accuracy: Field required"]),
        ("clean", {"measured__interval": [0.95, 0.99]}, ["interval must contain", "0.95"]),
        ("clean", {"measured__interval": 0.5}, ["interval"]),
        ("clean", {"measured__seen": 0}, ["seen"]),
        ("clean", {"condition__kind": None}, ["condition"]),
        ("clean", {"dataset__examples": 0}, ["dataset.examples"]),
        ("clean", {"dataset": "fashion"}, ["dataset"]),
        ("clean", {"protocol": None}, ["protocol: Field required"]),
        ("clean", {"protocol__draws": True}, ["draws"]),
        ("clean", {"mood": "good"}, ["has the field mood, which", "remove the field"]),
        ("clean", {"measured": {"kind": "checks", "checks": [], "seen": 1}}, ["checks"]),
        ("attack", {"condition__attacks__0__norm": "l3"}, ["norm", "'l3'"]),
        ("attack", {"condition__attacks__0__eps": -1}, ["eps"]),
        ("attack", {"condition__eot_samples": 0}, ["eot_samples"]),
        ("attack", {"condition__attacks": []}, ["attacks"]),
    ],
)
def test_fields_out_of_range(directory, name, changes, parts):
    built.edit(directory / f"{name}.json", **changes)
    fails(directory / f"{name}.json", *parts)


def test_a_result_measures_what_its_condition_says(directory):
    built.edit(directory / "clean.json", condition={"kind": "v1"})
    fails(directory / "clean.json", "measured must be NoneType for the kind 'v1', got Accuracy")


@pytest.mark.parametrize(
    ("name", "change", "parts"),
    [
        ("clean", {"probability_correct": np.full(100, 0.5)}, ["0.500000", "not of one eval"]),
        ("clean", {"probability_correct": np.full(100, np.nan)}, ["not finite"]),
        ("clean", {"probability_correct": np.full(100, 1.5)}, ["must be in [0, 1]"]),
        (
            "clean",
            {"probability_correct": np.repeat([1.0, -0.5, 0.5], [90, 5, 5])},
            ["must be in [0, 1]"],
        ),
        ("clean", {"probability_correct": np.zeros(7)}, ["shape (100)", "(7,)"]),
        ("clean", {"index": None}, ["index is missing", "label"]),
        ("clean", {"index": np.zeros(100, int)}, ["index must be different integers >= 0"]),
        ("clean", {"index": np.arange(100) - 1}, ["index must be different integers >= 0"]),
        ("clean", {"index": np.arange(100) / 2}, ["index must be different integers >= 0"]),
        (
            "clean",
            dict.fromkeys(("index", "label", "probability_correct"), np.arange(5)),
            ["it has 5 images, but the JSON file says 100"],
        ),
        (
            "clean",
            {
                "index": np.arange(200),
                "label": np.zeros(200, int),
                "probability_correct": np.full(200, 0.9),
            },
            ["it has 200 images, but the JSON file says 100"],
        ),
        (
            "clean",
            {"probability_correct": np.repeat([1.0, 0.5, 0.0], [90, 1, 9])},
            ["0.905000", "not of one evaluation"],
        ),
        ("clean", {"label": np.array(["a"] * 100)}, ["label must be numbers"]),
        ("attack", {"distance": np.zeros(7)}, ["distance", "shape (100)", "(7,)"]),
        ("gallery", {"images": np.full((6, 4, 4, 1), 2.0)}, ["adversarial", "shape"]),
        *(
            ("gallery", {name: np.full((3, 12, 12, 3), 2.0)}, [f"{name} must be in [0, 1]"])
            for name in ("images", "adversarial")
        ),
        ("gallery", {"label": np.zeros(4, int)}, ["label", "shape (3)"]),
        ("v1", {"image": np.full((4, 4, 1), -1.0)}, ["image must be in [0, 1]"]),
        ("v1", {"image": np.zeros((4, 4, 2))}, ["1 or 3 channels"]),
        ("v1", {"sf": np.ones(3)}, ["sf", "shape (8)"]),
        ("v1", {"simple_channels": np.int64(9)}, ["simple_channels must be in [0, 8], got 9"]),
        ("v1", {"published_sf_edges": np.ones(8)}, ["published_sf_edges"]),
        ("v1", {"published_nx_edges": None}, ["the array published_nx_edges is missing"]),
        ("v1", {"published_nx_weights": None}, ["the array published_nx_weights is missing"]),
        ("v1", {"published_nx_weights": np.ones(99)}, ["published_nx_edges", "shape (100)"]),
        (
            "v1",
            {"published_sf_edges": np.array([0, 1, 1]), "published_sf_weights": np.ones(2)},
            ["published_sf_edges must ascend"],
        ),
        (
            "v1",
            {"published_sf_edges": np.arange(3), "published_sf_weights": np.zeros(2)},
            ["published_sf_weights be counts"],
        ),
    ],
)
def test_arrays_out_of_range(directory, first_format, name, change, parts):
    source = first_format / "tiny" / "results" if name == "v1" else directory
    path = with_arrays(source / f"{name}.json", directory, change)
    fails(path, path.with_suffix(".npz"), *parts)


@pytest.mark.parametrize("simple", [0, 8])
def test_a_bank_with_one_kind_of_cells(directory, first_format, simple):
    source = first_format / "tiny" / "results" / "v1.json"
    # Nor need there be published distributions of its parameters.
    published = [
        f"published_{name}_{part}"
        for name in ("sf", "theta", "nx", "ny")
        for part in ("edges", "weights")
    ]
    change = dict.fromkeys(published) | {"simple_channels": np.int64(simple)}
    assert results.read(with_arrays(source, directory, change)).arrays["simple_channels"] == simple


def test_lone_surrogates_become_replacement_characters(directory):
    """A command with a path that is not UTF-8 is written with them."""
    path = directory / "clean.json"
    odd = built.change(
        results.read(path), provenance=results.Provenance(command="eval.py \udcff", device="\x00")
    )
    results.write(directory, odd)
    assert "\\udcff" in path.read_text()
    assert results.read(path).provenance.command == "eval.py \ufffd"
    assert json.loads(path.read_text())["provenance"]["device"] == "\x00"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"condition__layer": None}, "layer: Field required"),
        ({"measured__scores__units": 0}, "units"),
        ({"measured__scores__units": 31}, r"unit/row must be numbers of shape (31)"),
        ({"measured__status": "not scored: x"}, "scores are LayerScores"),
        ({"measured__scores__properties__pref_or__status": "good"}, "status"),
        ({"measured__scores__properties__pref_or__score": None}, "score"),
        ({"measured__scores__properties__peak_sf__distribution": [0.5, 0.5]}, "of the 4 bins"),
        ({"measured__scores__properties__peak_sf__distribution": [0.3] * 4}, "of the 4 bins"),
        ({"measured__scores__contrast_response": {"median_c50": "a"}}, "median_c50"),
        ({"measured__scores__variability__trials": 1}, "trials"),
        ({"measured__scores__variability__units": 3}, "variability/mean must be numbers of shape"),
        ({"measured__scores__textures": {"source": "x"}}, "textures"),
    ],
)
def test_damaged_layers_are_named(tmp_path, changes, message):
    path = results.write(tmp_path, layers.layer(built.network(), "stem", **layers.experiments()))
    assert results.read(path).measured.scores.units == layers.UNITS
    built.edit(path, **changes)
    fails(path, message)


def test_arrays_of_a_layer_are_checked(tmp_path):
    made = layers.layer(built.network(), "stem", **layers.experiments())
    for change, part in (
        ({"unit/row": None}, "unit/row is missing"),
        ({"value/pref_or": np.full(layers.UNITS, np.inf)}, "infinite"),
        ({"field/map": np.zeros((20, 21, 30)), "axis/position": np.arange(20.0)}, "field/map"),
        ({"axis/radius": np.zeros(0), "curve/size": np.zeros((0, layers.UNITS))}, "is empty"),
        ({"variability/spike_mean": None}, "variability/spike_mean is missing"),
    ):
        path = results.write(tmp_path, made)
        arrays = {k: v for k, v in (made.arrays | change).items() if v is not None}
        np.savez(path.with_suffix(".npz"), **arrays)
        fails(path, part)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"kind": "checks", "seen": 50, "checks": [{"name": "a"}]}, "question"),
        ({"kind": "distances", "seen": 9, "broken": 1, "median_distance": -1, "ladder": []},
         "median_distance"),
        ({"kind": "distances", "seen": 9, "broken": 1, "median_distance": None,
          "ladder": [{"eps": 1, "accuracy": 0.5, "interval": [0.6, 1]}]}, "interval"),
        ({"kind": "means", "of_corruptions": 2}, "of_corruptions"),
    ],
)  # fmt: skip
def test_damaged_tables_are_named(directory, measured, message):
    built.edit(directory / "clean.json", measured=measured)
    fails(directory / "clean.json", message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("measured", "seen"), 10**400),
        (("condition", "attacks", 0, "eps"), 1e308),
    ],
)
def test_values_that_no_evaluation_writes_are_refused(directory, path, value):
    file = directory / "attack.json"
    content = json.loads(file.read_text())
    inner = content
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))
    fails(file, "attack.json")


def test_the_reach_of_an_attack_is_not_short_by_rounding():
    eps, steps = 3 / 255, 45
    assert steps * (eps / steps) / eps < 1
    fields = {"steps": steps, "step_size": eps / steps}
    assert results.Attack("PGD", "linf", eps, fields).reach == 1


def test_odd_fields_of_an_attack_have_no_reach_and_tiny_radii_a_label():
    assert results.Attack("PGD", "linf", 0.1, {"steps": "x", "step_size": None}).reach == np.inf
    started = {"steps": 1, "step_size": 0.01, "random_start": True}
    assert results.Attack("PGD", "linf", 0.1, started).reach == np.inf
    assert results.Attack("PGD", "linf", 5e-324, {}).eps_label == "4.941e-324"


@pytest.mark.parametrize("name", ["PGD", *(cls.__name__ for cls in MINIMAL)])
def test_only_attacks_for_minimal_changes_may_leave_images_where_they_are(name):
    made = built.accuracy(built.attacked("linf", 0.1, name=name), 0.5)
    made.arrays["distance"] = np.zeros(100)
    assert made.blind == (0.5 if name == "PGD" else 0.0)
    transfer = built.attacked("linf", 0.1, name="Transfer", attack={"name": name})
    within = built.accuracy(transfer, 0.5)
    within.arrays["distance"] = np.zeros(100)
    assert within.blind == made.blind
    for other, kept in ((name, name != "PGD"), ("APGD", False)):
        inner = [{"name": name}, {"name": other}]
        several = built.attacked("linf", 0.1, name="AutoAttack", attacks=inner)
        assert several.attack.keeps_unbroken == kept


@pytest.mark.parametrize(
    ("fields", "array", "blind"),
    [
        ({"loss": "cross_entropy"}, {"loss": 0.0}, 0.5),  # saturated: p - 1 is nothing but rounding
        ({"loss": "cross_entropy"}, {"loss": 1e-7}, 0.0),
        ({"loss": "margin"}, {"loss": 0.0}, 0.0),
        ({"name": "APGD"}, {"flat": True}, 0.5),
        ({"name": "APGD"}, {"flat": False}, 0.0),
    ],
)
def test_an_attack_that_moves_images_may_have_no_gradient(fields, array, blind):
    made = built.accuracy(built.attacked("linf", 0.1, **fields), 0.5)
    made.arrays["distance"] = np.full(100, 0.1)
    made.arrays.update({name: np.full(100, value) for name, value in array.items()})
    assert made.blind == blind


def test_of_several_attacks_one_without_a_gradient_may_win_a_tie():
    """Where all images have the cross-entropy 0, the first attack wins, which cannot move them."""
    first, second = (built.attacked("linf", 0.1, loss=loss) for loss in ("cross_entropy", "margin"))
    made = built.accuracy(results.AttackCondition((first.attack, second.attack)), 0.5)
    made.arrays.update(distance=np.zeros(100), loss=np.zeros(100))
    assert made.blind == 0.5
    made.arrays["flat"] = np.zeros(100, bool)
    assert made.blind == 0.0


def test_images_without_a_smallest_change_were_not_moved():
    condition = results.MinimalCondition(built.attacked("linf", 0.1, name="FMN").attack, (0.1,))
    arrays = {"distance": np.repeat([np.inf, 0.1], [30, 70])}
    assert built.result(condition, results.Distances(100, 70, 0.1, ()), arrays).blind == 0.3


def test_images_that_are_wrong_in_some_draws_may_stay_where_they_are():
    condition = built.attacked("linf", 0.1, early_stop=True)
    made = built.accuracy(condition, [0.9] * 30 + [1.0] * 70)
    made.arrays["distance"] = np.repeat([0.0, 0.1], [40, 60])
    assert made.blind == 0.1


def test_a_radius_that_was_computed_in_two_ways_is_one():
    in_double, in_single = 4 / 255, float(np.float32(4) / np.float32(255))
    assert in_double != in_single
    made = [results.Attack("PGD", "linf", eps, {}) for eps in (in_double, in_single)]
    assert made[0].radius == made[1].radius


@pytest.mark.parametrize("kind", ["m8[s]", "c8", "U3", "?"])
def test_arrays_that_are_no_numbers_are_refused(directory, kind):
    arrays = dict(np.load(directory / "clean.npz"))
    arrays["probability_correct"] = np.ones(len(arrays["index"])).astype(kind)
    np.savez(directory / "clean.npz", **arrays)
    fails(directory / "clean.json", "probability_correct must be numbers")
