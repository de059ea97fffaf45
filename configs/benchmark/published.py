"""The paper's table from the paper's weights: the published VOneNets and their base networks.

The files below ``--weights`` have the names under which their authors publish them: five VOneNets
of dicarlolab/vonenet, torchvision's ResNet-50 and AlexNet, CORnet-S, and MadryLab's ResNet-50 that
was trained adversarially at 4/255. Missing files are listed and left out. The protocol is that of
the authors at the time of the paper: every tenth validation image (5,000), PGD of 64 steps of
eps/32 with gradients averaged over 10 noise draws at four radii in three norms, and the 15
corruptions at five severities. Besides the files, only ``--source`` is needed: a folder of the
50,000 validation images with a folder for each WordNet number, or tfds:imagenet2012.

Paper row: figure 2 and table 1 of Dapello, Marques et al. 2020 (the numbers of the tables are not
public).
Expected: not measured; the weights are not on the machines of this project.
Hardware: planned for one GPU or TPU. Wall time: not measured; the passes of each network are those
of benchmark/vonenet.
Data: ImageNet's validation images, see imagenet/resnet50.
Command: python sweep.py benchmark/published --weights DIR --source folder:DIR
"""

from configs.benchmark.protocol import attacks, corruptions
from vone_jax.sweep import Member, Sweep, Weights

# By label: the name of the published file.
_FILES = {
    "resnet50": "resnet50-*.pth",
    "vone-resnet50": "voneresnet50_e70.pth*",
    "vone-resnet50-quiet": "voneresnet50_ns_e70.pth*",
    "vone-resnet50-adversarial": "voneresnet50_at_e96.pth*",
    "resnet50-adversarial": "imagenet_linf_4*.pt",
    "cornet-s": "cornet_s*.pth*",
    "vone-cornet-s": "vonecornets_e70.pth*",
    "alexnet": "alexnet-*.pth",
    "vone-alexnet": "vonealexnet_e70.pth*",
}

sweep = Sweep(
    name="published",
    group="published",
    members={label: Member(Weights(pattern)) for label, pattern in _FILES.items()},
    evaluations=[
        # 5,000 images, or all of a smaller set.
        ("--suite", "clean"),
        *attacks(None, step_rules=("eps/32",)),
        corruptions(),
    ],
)
