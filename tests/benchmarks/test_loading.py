"""The images of the loading benchmark are like photographs, and it reads what it wrote."""

import json

import numpy as np
import pytest

from benchmarks import loading


def test_images_have_the_size_and_the_spectrum_of_photographs():
    rng = np.random.default_rng(0)
    image = loading.photograph(rng)
    assert image.shape == (375, 500, 3) and image.dtype == np.uint8
    file = loading.jpeg_of(image, 110_000)
    assert 90_000 < len(file) <= 110_000
    assert loading.resized(image).shape == (256, 341, 3)
    # Amplitudes fall as 1/frequency: neighbouring octaves have equal power.
    spectrum = np.abs(np.fft.fft2(image.mean(axis=2))) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(375), np.fft.fftfreq(500), indexing="ij"))
    low, high = (
        spectrum[(frequency >= start) & (frequency < 2 * start)].sum() for start in (0.05, 0.1)
    )
    assert high == pytest.approx(low, rel=0.2)


@pytest.mark.slow
def test_the_command_reads_every_form(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert loading.main(["--quick", "--workers", "0", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["form"] for row in rows] == ["whole", "resized", "decoded"]
    assert all(row["images/s"] > 0 and row["images/s of a core"] > 0 for row in rows)
    assert 90_000 < rows[0]["bytes"] < 110_000 and rows[2]["bytes"] == 256 * 341 * 3
    assert "| whole |" in capsys.readouterr().out
