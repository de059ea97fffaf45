"""Every suite on networks from every source, and a report of them side by side."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.convert.torch_writer import archive
from tests.networks import random_variables
from vone_jax import convert, data, models, results, v1
from vone_jax.cli import evaluate, report, sweep

QUICK = Path(__file__).parents[1] / "evaluation" / "quick_suites.py"
SUITES = ("clean", f"{QUICK}:linf", "corruptions_quick")
SMALL = ("--source", "fashion_mnist_small", "--examples", "6", "--draws", "2", "--batch-size", "8")
CLEAN = ("--suite", "clean", *SMALL)


@pytest.fixture(scope="module")
def vone():
    """An untrained VOneNet for Fashion-MNIST, and its variables."""
    model = models.create("vone_alexnet", 10, 28, 1, width=2)
    return model, models.init(model, jax.random.key(0))


@pytest.fixture
def names(tmp_path):
    """A file with the names of Fashion-MNIST's classes."""
    from tests.networks import CLASS_NAMES

    path = tmp_path / "names.txt"
    path.write_text("\n".join(CLASS_NAMES) + "\n")
    return str(path)


@pytest.mark.slow
def test_every_source_goes_through_every_suite(vone, names, tmp_path, monkeypatch):
    """A network of a folder is a network as that of a run: masking and physiology are as there."""
    monkeypatch.chdir(tmp_path)
    model, variables = vone
    convert.save_folder("folder", model, variables)
    named = ("--class-names", names)
    for spec, options, suites in (
        ("tests.networks:cnn", (), (*SUITES, f"{QUICK}:masking", "physiology")),
        ("folder", named, (*SUITES, "v1")),
    ):
        assert evaluate.main([spec, "--suite", *suites, *SMALL, *options]) == 0
    loaded = results.load(["runs/cnn", "runs/folder"])
    for each, kinds in zip(loaded, ({"masking", "physiology"}, {"front end"}), strict=True):
        found = {result.row["condition"] for result in each.results}
        assert found == {"clean", "attack", "corruption"} | kinds and not each.unfinished
    assert report.main(["runs/cnn", "runs/folder", "--out", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    for label in ("cnn", "VOneAlexNet"):
        assert label in page


def test_results_go_where_they_are_sent(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = "tests.networks:without_names"
    assert evaluate.main([spec, *CLEAN, "--class-names", names]) == 0
    assert {path.name for path in (tmp_path / "runs/without_names/results").iterdir()} == {
        *("clean.json", "clean.npz"),
    }
    (result,) = results.load("runs/without_names")[0].results
    assert result.identity["network"]["source"] == f"function {spec}"
    assert result.identity["protocol"]["noise"] == "fresh"
    assert result.provenance["parameters"] == 7840
    assert "without_names (without_names), 6 images of" in capsys.readouterr().out


SWEEP = f"""
from vone_jax.sweep import Member, Sweep, Weights

sweep = Sweep(
    "table", "table",
    {{
        "base": Member(Weights("resnet18-*.pth")),
        "vone": Member(Weights("voneresnet18_e70.pth*")),
        "absent": Member(Weights("vonealexnet_e70.pth*")),
    }},
    [
        ("--suite", "clean", "--draws", "2"),
        ("--suite", "{QUICK}:linf", "--eps", "1/255", "--draws", "2"),
    ],
)
"""


@pytest.mark.slow
def test_files_in_the_published_formats_make_a_table(tmp_path, monkeypatch):
    """The way of ``benchmark/published``, with narrow networks of 1000 classes and six images.

    The folder has classes 7, 3 and 999 of ImageNet, so that labels are matched by WordNet number.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    networks = {}
    for name, file in (
        ("resnet18", "resnet18-f37072fd.pth"),
        ("vone_resnet18", "voneresnet18_e70.pth.tar"),
    ):
        form = {}
        if name.startswith("vone"):
            form["v1"] = v1.VOneBlockConfig(simple_channels=8, complex_channels=8)
        model = models.create(name, 1000, width=2, **form)
        variables = random_variables(model)
        networks[name] = model, variables
        tensors = convert.to_torch(model, variables)
        if form:
            flags = {
                **{"arch": "resnet18", "stride": 4, "simple_channels": 8, "complex_channels": 8},
                **{"k_exc": 25.0, "noise_mode": "neuronal", "noise_scale": 0.35},
                "noise_level": 0.07,
            }
            named = {f"module.{key}": value for key, value in tensors.items()}
            tensors = {"flags": flags, "state_dict": named}
        (tmp_path / "weights" / file).write_bytes(archive(tensors))
    rng = np.random.default_rng(0)
    classes = [data.imagenet_class_names()[label] for label in (7, 3, 999)]
    for folder in classes:
        (tmp_path / "images" / folder).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (256, 300, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / folder / f"{number}.png")
    (tmp_path / "table.py").write_text(SWEEP)
    arguments = ["table.py", "--weights", "weights", "--source", "folder:images"]
    with pytest.warns(UserWarning, match=r"left out: vonealexnet_e70.pth\* \(absent\)"):
        assert sweep.main([*arguments, "--runs", "runs"]) == 0
    frame = results.load(["runs/table/base", "runs/table/vone"]).to_frame()
    attacked = frame[frame["condition"] == "attack"]
    assert set(attacked["eps"]) == {1 / 255}
    assert set(frame.network) == {"ResNet-18", "VOneResNet-18"}
    assert (tmp_path / "runs/table/table.html").stat().st_size > 1e5
    # The base network has no noise: its decisions are those of its logits.
    (clean,) = results.load(["runs/table/base"])[0].of("clean")
    (batch,) = data.eval_batches(data.load("folder:images", "."), batch_size=6, image_size=224)
    expected = models.logits_fn(*networks["resnet18"])(jax.random.key(0), batch["image"])
    assert sorted(clean.arrays["label"].tolist()) == [3, 3, 7, 7, 999, 999]
    right = np.argmax(expected, -1) == clean.arrays["label"]
    np.testing.assert_array_equal(clean.arrays["right"][:, 0], right)
    # Results hold no bank of kernels, and few pictures.
    assert (
        max(path.stat().st_size for path in tmp_path.glob("runs/table/*/results/*.json")) < 50_000
    )
