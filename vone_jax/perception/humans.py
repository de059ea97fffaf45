"""Published numbers of human observers, to be shown beside those of networks.

They are summaries, computed from data that the authors have released. The data themselves are not
part of the package: where their licence is stated at all, it is that of the code beside them (MIT).
All accuracies are shares of right decisions among 16 categories, with a chance level of 1/16.
"""

import dataclasses

# The 16 categories, and the labels of ImageNet's classes that count as each (Geirhos et al. 2018,
# listed in bethgelab/model-vs-human). Other classes are in none.
CATEGORIES = {
    "airplane": "404", "bear": "294-297", "bicycle": "444 671",
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "boat": "472 554 625 814 914", "bottle": "440 720 737 898 899 901 907", "car": "436 511 817",
    "cat": "281-286", "chair": "423 559 765 857", "clock": "409 530 892",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
    "elephant": "385 386", "keyboard": "508 878", "knife": "499", "oven": "766",
    "truck": "555 569 656 675 717 734 864 867",
}  # fmt: skip
CHANCE = 1 / len(CATEGORIES)


def imagenet_labels(category: str) -> list[int]:
    """The labels of ImageNet's classes that count as a category."""
    ends = [list(map(int, part.split("-"))) for part in CATEGORIES[category].split()]
    return [label for each in ends for label in range(each[0], each[-1] + 1)]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The accuracy of human observers at each level of a condition.

    Attributes:
      levels: the levels, in the order in which they were published.
      accuracy: the mean over observers at each level, a share.
      unit: what a level is.
      observers: number of observers.
      source: study and released data.
    """

    levels: tuple[float, ...] | tuple[str, ...]
    accuracy: tuple[float, ...]
    unit: str
    observers: int
    source: str


_FEATHER = (
    "Feather, Leclerc, Madry, McDermott (Nature Neuroscience 2023), means over observers in the "
    "released data"
)
# The natural image, then metamers of these layers. "relu0" is V1 in VOneAlexNet.
_STAGES = ("natural", "relu0", "relu1", "relu2", "relu3", "relu4", "fc0", "fc1", "final")


def _metamers(*accuracy: float) -> Curve:
    levels = _STAGES if len(accuracy) > 1 else _STAGES[-1:]
    return Curve(levels, accuracy, "layer", 20, _FEATHER)


# Network in print -> how often humans recognise its metamers. The AlexNet is an early checkpoint of
# its training; VOneAlexNet has Gaussian noise (SD 4) and at most 6 cycles per degree.
METAMERS = {
    "AlexNet": _metamers(0.90, 0.90, 0.70, 0.30, 0.16, 0.10, 0.07, 0.07, 0.06),
    "VOneAlexNet": _metamers(0.90, 0.92, 0.90, 0.66, 0.52, 0.37, 0.12, 0.13, 0.09),
    "low-pass AlexNet": _metamers(0.90, 0.89, 0.88, 0.85, 0.79, 0.64, 0.21, 0.13, 0.16),
    "ResNet-50": _metamers(0.08),
    "ResNet-50, robust (L2 3)": _metamers(0.64),
}

# The paper of 2018 had other observers in some experiments. Its means differ from these by up to 19
# points.
_GEIRHOS = (
    "Geirhos et al. (NeurIPS 2018, NeurIPS 2021), means over 640 trials for each level in the data "
    "released with model-vs-human (2021)"
)
_SIDE = "SD of the filter in pixels of 224"

# Distortion of grey photographs -> accuracy, 4 observers.
DISTORTIONS = {
    "contrast": Curve(
        (1.0, 0.5, 0.3, 0.15, 0.1, 0.05, 0.03, 0.01),
        (0.856, 0.827, 0.795, 0.734, 0.595, 0.353, 0.150, 0.062),
        "share of the full contrast", 4, _GEIRHOS,
    ),
    "uniform_noise": Curve(
        (0.0, 0.03, 0.05, 0.1, 0.2, 0.35, 0.6, 0.9),
        (0.797, 0.834, 0.764, 0.770, 0.647, 0.398, 0.148, 0.070),
        "half width of the noise, at a contrast of 0.3", 4, _GEIRHOS,
    ),
    "low_pass": Curve(
        (0.0, 1.0, 3.0, 5.0, 7.0, 10.0, 15.0, 40.0),
        (0.920, 0.914, 0.795, 0.630, 0.588, 0.380, 0.200, 0.061),
        _SIDE, 4, _GEIRHOS,
    ),
    "high_pass": Curve(
        (float("inf"), 3.0, 1.5, 1.0, 0.7, 0.55, 0.45, 0.4),
        (0.883, 0.808, 0.739, 0.616, 0.353, 0.178, 0.073, 0.064),
        _SIDE, 4, _GEIRHOS,
    ),
    "phase_noise": Curve(
        (0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0),
        (0.898, 0.880, 0.795, 0.686, 0.391, 0.106, 0.102),
        "largest shift of a phase in degrees", 4, _GEIRHOS,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Channel:
    """The spatial frequencies that observers use, from masking with noise of one octave.

    Attributes:
      bandwidth, bandwidth_deviation: full width at half height in octaves, mean and standard
        deviation over observers, each fitted alone.
      centre, centre_deviation: centre in cycles per image, the same.
      observers: number of observers.
      source: study and released data.
    """

    bandwidth: float
    bandwidth_deviation: float
    centre: float
    centre_deviation: float
    observers: int
    source: str


# The fit to the pooled observers is not used: it stands on two bands.
CHANNEL = Channel(
    1.43, 0.54, 39.1, 3.0, 14,
    "Subramanian, Sizikova, Majaj, Pelli (NeurIPS 2023), fits to single observers of released data",
)  # fmt: skip
