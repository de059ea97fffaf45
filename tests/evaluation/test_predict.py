"""What a run takes photographs for: probabilities of each draw, and the printed table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vone_jax import evaluation
from vone_jax.cli import evaluate as program
from vone_jax.network import Network

NAMES = ("dark", "bright")


def logits(keys, images):
    """The mean of the pixels decides, with noise of its own for each image."""
    noise = jax.vmap(lambda key: jax.random.normal(key, ()))(keys)
    return jnp.stack([jnp.zeros(len(images)), 8.0 * images.mean((1, 2, 3)) - 4.0 + noise], axis=1)


NOISY = Network("noisy", logits, (8, 8, 3), NAMES, stochastic=True)


@pytest.fixture
def files(tmp_path):
    """A dark, a bright and a middle photograph, larger than the network's images."""
    paths = [tmp_path / f"{name}.png" for name in ("dark", "bright", "middle")]
    for path, grey in zip(paths, (20, 235, 130), strict=True):
        Image.fromarray(np.full((10, 12, 3), grey, np.uint8)).save(path)
    return paths


def test_probabilities_are_those_of_the_logits_of_each_draw(files):
    found = evaluation.predict(NOISY, files, jax.random.key(0), noise_draws=200)
    assert found.shape == (200, 3, 2)
    np.testing.assert_allclose(found.sum(axis=-1), 1.0, rtol=1e-6)
    # The logit of "bright" is normal around its value without noise.
    odds = np.log(found[..., 1] / found[..., 0])
    expected = 8.0 * np.array([20, 235, 130]) / 255 - 4.0
    np.testing.assert_allclose(odds.mean(axis=0), expected, atol=4 / 200**0.5)
    np.testing.assert_allclose(odds.std(axis=0), 1.0, atol=0.2)


def test_an_image_has_its_draws_whatever_the_other_files_are(files):
    together = evaluation.predict(NOISY, files, jax.random.key(0))
    for place, file in enumerate(files):
        alone = evaluation.predict(NOISY, [file], jax.random.key(0))
        np.testing.assert_allclose(alone[:, 0], together[:, place], rtol=1e-6)
    other = evaluation.predict(NOISY, files, jax.random.key(1))
    assert not np.allclose(other, together)


def test_the_command_prints_each_file_with_its_class(files, tmp_path, monkeypatch, capsys):
    (tmp_path / "net.py").write_text(
        "from tests.evaluation.test_predict import NOISY\ndef net():\n    return NOISY\n"
    )
    command = [f"{tmp_path}/net.py:net", "--predict", *map(str, files), "--draws", "4"]
    assert program.main(command) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["file", "class", "confidence", "draws", "second", "class"]
    assert "dark" in lines[0] and "4 of 4" in lines[0] and "bright" in lines[1]
    quiet = [f"{tmp_path}/none.png"]
    assert program.main([*command[:2], *quiet]) == 2
    assert f"{quiet[0]}: No such file" in capsys.readouterr().err


def test_names_of_files_cannot_write_to_the_terminal(files, tmp_path, capsys):
    """Neither in the table nor in an error."""
    (tmp_path / "net.py").write_text(
        "from tests.evaluation.test_predict import NOISY\ndef net():\n    return NOISY\n"
    )
    network, name = f"{tmp_path}/net.py:net", "\x1b[2J\nerror: a.png"
    files[0].rename(tmp_path / name)
    assert program.main([network, "--predict", f"{tmp_path}/{name}"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 2 and "?[2J?error: a.png" in said
    (tmp_path / name).write_bytes(b"no image")
    assert program.main([network, "--predict", f"{tmp_path}/{name}"]) == 2
    assert "\x1b" not in capsys.readouterr().err
