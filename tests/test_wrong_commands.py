"""Wrong command lines: each names the word that is wrong, says the cure, and computes nothing.

A line of the table is a command, the option (or the word) that the message must name, a part of the
cure, and the exit status where it is not 2.
"""

import errno
import os
import shlex

import numpy as np
import pytest

from tests.photographs import write_photographs
from vone_jax import cli, evaluation
from vone_jax.cli import evaluate, prepare, report, sweep, train
from vone_jax.network import Network, Split

MAINS = {
    "train": train.main,
    "eval": evaluate.main,
    "sweep": sweep.main,
    "report": report.main,
    "prepare": prepare.main,
}

# Short names: trained are r = quickstart/resnet18 and v = quickstart/vone_resnet18; eval judges
# the network net; s is a sweep.
SHORT = {
    "train r": "train quickstart/resnet18",
    "train v": "train quickstart/vone_resnet18",
    "sweep s": "sweep laboratory/components",
}

TABLE = """
train                                           | CONFIG       | imagenet/vone_resnet50
train --epochs 3                                | --epochs     | CONFIG must come before
train nosuch                                    | nosuch       | quickstart/vone_resnet18
train quickstart/resnet19                       | resnet19     | did you mean 'quickstart/resnet18'
train quickstart                                | quickstart   | did you mean 'quickstart/resnet18'
train laboratory/components                     | components   | python sweep.py laboratory/com
train laboratory/similarity                     | base-similar-v1 | laboratory/similarity:LABEL
train laboratory/components:bas                 | bas          | did you mean 'base-0'
train nofile.py                                 | nofile.py    | there is no file
train broken.py                                 | broken.py    | division by zero
train empty.py                                  | empty.py     | must define experiment = Experiment
train barred/own.py                             | CONFIG barred/own.py | Permission denied
train r --data.augment.crop-scale 0.2           | --data.augment.crop-scale | 2 words
train r --data.augment.crop-scale 2 1           | --data.augment.crop-scale | low <= high <= 1
train r --steps 9 extra                         | extra        | belongs to no option
train r --data photos                           | --data       | a group of that name
train v --model.v1.noise None                   | --model.v1.noise | --model.v1.noise.scale
train r --optimizer.schedule.kind step          | .schedule.kind | has --optimizer.schedule.final
train r --model.image-size 100000               | --model.image-size | >= 8 and <= 4096
train r --epochs 1e300                          | --epochs     | > 0 and <= 1e+06
train r --epoch 3                               | --epoch      | did you mean --epochs
train r --batch-size 3                          | --batch-size | did you mean --data.batch-size
train r --learning-rate 0.1                     | --learning-rate | --optimizer.learning-rate
train r --optimizer.learning-rat 0.1            | .learning-rat | mean --optimizer.learning-rate
train r --optimizer.schedule.patience 3         | .patience    | --optimizer.schedule.final
train r --optimizer.lr 0.1                      | --optimizer.lr | mean --optimizer.learning-rate?
train r --lr 0.1                                | --lr         | mean --optimizer.learning-rate?
train r -epochs 3                               | -epochs      | did you mean --epochs?
train r --eps 8/255                             | --eps        | python eval.py has it
train r --weights net.pth                       | --weights    | did you mean --initial-weights?
train r --resume                                | --resume     | run the same command again
train r --gpus 2                                | --gpus       | JAX_PLATFORMS=cpu
train r --similarity.target v1                  | --similarity | is None in this config
train v --model.v1.normalization.gain 2         | --model.v1.normalization | config file of your own
train v --model.v1.visual-degrees 2             | --model.v1:  | beyond the Nyquist limit
train r --epochs                                | --epochs     | needs a value
train r --epochs many                           | --epochs     | neither a number nor a fraction
train r --epochs 0                              | --epochs     | a finite number > 0
train r --steps 0                               | --steps      | an integer >= 1
train r --steps 2.5                             | --steps      | an integer, got '2.5'
train r --seed 1.5                              | --seed       | an integer, got '1.5'
train r --seed=-1                               | --seed       | an integer >= 0
train r --seed 4294967296                       | --seed       | <= 4294967295
train r --name a/b                              | --name       | name of a directory
train r --precision float16                     | --precision  | one of float32, bfloat16
train r --matmul-precision low                  | --matmul-precision | default, high, highest
train r --accumulation-steps 3                  | --accumulation-steps | divide --data.batch-size
train r --accumulation-steps 0                  | --accumulation-steps | an integer >= 1
train r --epochs nan                            | --epochs     | a finite number > 0
train r --evaluate-every 0                      | --evaluate-every | a finite number > 0
train r --evaluate-every nan                    | --evaluate-every | a finite number > 0
train r --keep-checkpoints 0                    | --keep-checkpoints | an integer >= 1
train r --log-every 0                           | --log-every  | an integer >= 1
train r --distributed here                      | --distributed | auto or HOST:PORT,N,I
train r --distributed host:1,2                  | --distributed | auto or HOST:PORT,N,I
train r --data.batch-size 0                     | --data.batch-size | an integer >= 1
train r --data.batch-size 12.5                  | --data.batch-size | an integer, got '12.5'
train r --data.workers=-1                       | --data.workers | an integer >= 0
train r --data.augment.flip maybe               | maybe        | on or off takes no value
train r --data.corruptions fogg                 | --data.corruptions | did you mean 'fog'
train r --data.corruption-severity 5 1          | --data.corruption-severity | low <= high
train r --data.corruption-probability 2         | --data.corruption-probability | <= 1
train r --data.center-crop 0                    | --data.center-crop | > 0 and <= 1
train r --data.source fashion_mnist             | --data.source | did you mean 'tfds:fashion_mnist'
train r --data.source photos                    | --data.source | 'folder:<path>'
train r --data.source folder:nowhere            | --data.source | is not a directory
train r --data.source folder:void               | --data.source | void/<class>/<image>
train r --data.source npz:nowhere               | --data.source | nowhere: No such file
train r --data.source npz:text.txt              | --data.source | cannot be read as NPZ
train r --data.train-split trian                | --data.train-split | splits are train, test
train r --data.eval-split validatoin            | --data.eval-split | splits are train, test
train r --data.data-dir void                    | --data.data-dir | is for 'tfds:' sets
train r --data.source folder:photos --model.in-channels 1 | --model.in-channels | leave it out
train r --model.name resnet19                   | --model.name | did you mean 'resnet18'
train r --model.num-classes 3                   | --model.num-classes | have 10
train r --model.image-size 4                    | --model.image-size | an integer >= 8
train r --model.image-size big                  | --model.image-size | an integer
train r --model.width 0                         | --model.width | an integer >= 1
train r --model.mean 0.1 0.2 0.3                | --model.mean | one number or one per channel
train r --model.v1.k-exc 3                      | --model.v1.k-exc | takes a network with V1
train v --model.v1.stride 0                     | --model.v1.stride | an integer >= 1
train v --model.v1.kernel-size 4                | --model.v1.kernel-size | must be odd
train v --model.v1.k-exc=-1                     | --model.v1.k-exc | a finite number > 0
train v --model.v1.noise loud                   | --model.v1.noise | --model.v1.noise.scale
train v --model.v1.noise.scale=-1               | --model.v1.noise.scale | a finite number > 0
train v --model.v1.visual-degrees 0             | --model.v1.visual-degrees | a finite number > 0
train v --model.v1.distribution gauss           | --model.v1.distribution | physiological, physiol
train r --optimizer.learning-rate 0             | --optimizer.learning-rate | a finite number > 0
train r --optimizer.learning-rate fast          | --optimizer.learning-rate | neither a number nor
train r --optimizer.learning-rate nan           | --optimizer.learning-rate | a finite number > 0
train r --optimizer.momentum 1                  | --optimizer.momentum | >= 0 and < 1
train r --optimizer.weight-decay=-1             | --optimizer.weight-decay | a finite number >= 0
train r --optimizer.rates back_end/fc 0         | --optimizer.rates | the factor of 'back_end/fc'
train r --optimizer.rates back_end/fc           | --optimizer.rates | [STR FLOAT
train r --optimizer.rates back_end/fc=10        | --optimizer.rates | [STR FLOAT
train r --optimizer.rates nosuch/part 3         | --optimizer.rates | back_end/layer1_0
train r --freeze nosuch                         | --freeze     | back_end/layer1_0
train r --initial-weights nofile.pth            | --initial-weights | a checkpoint file (.pth
train r --initial-weights ~nosuch/w.pth         | --initial-weights | a checkpoint file (.pth
train r --data.source folder:~nosuch/x          | --data.source | is not a directory
train r --initial-weights text.txt              | --initial-weights | a checkpoint file (.pth
train r --initial-weights void                  | --initial-weights | train.py makes one
train r --data.source folder:photos --initial-weights photos | --initial-weights | makes one
train r --run-dir ''                            | --run-dir    | has an empty value; give one
train r --run-dir text.txt                      | --run-dir    | File exists
train r --run-dir text.txt/run                  | --run-dir    | Not a directory
train r --run-dir 'run[1]'                      | --run-dir    | one of the characters
eval                                            | NETWORK is one of | RUN_DIR
eval --suite clean                              | --suite      | NETWORK must come before
eval quickstart/resnet18                        | resnet18     | is a config: train it first
eval nosuch                                     | nosuch       | a directory of train.py
eval ~nosuch/run                                | ~nosuch/run  | a directory of train.py
eval nosuch.pth                                 | nosuch.pth   | a checkpoint file (.pth
eval empty.pth                                  | empty.pth    | empty.pth: the file is empty
eval nosuch.py:net                              | nosuch.py    | there is no file
eval nosuchmodule:net                           | nosuchmodule | there is no module
eval empty.py:net                               | empty.py     | has no function 'net'
eval text.txt                                   | text.txt     | a checkpoint file (.pth
eval void                                       | void         | there is no config.json in it
eval efficientnet_lite1                         | lite1        | did you mean 'efficientnet_lite0'
eval net+                                       | net+         | before and behind each +
eval net other                                  | other        | net+other is the mean
eval net --sweet clean                          | --sweet      | --help-all
eval net --corruption fog                       | --corruption | did you mean --corruptions
eval net --suite cleen                          | --suite      | did you mean 'clean'
eval net --suite clean,linf                     | --suite      | with spaces between them
eval net -suite clean                           | -suite       | did you mean --suite?
eval net --epsilon 8/255                        | --epsilon    | did you mean --eps?
eval net --data.source folder:x                 | --data.source | did you mean --source?
eval net --num-images 9                         | --num-images | did you mean --examples?
eval net --output there                         | --output     | did you mean --results?
eval net --weights net.pth                      | --weights    | NETWORK, the first word
eval net --epochs 3                             | --epochs     | python train.py has it
eval net --suite                                | --suite      | at least one of clean, linf
eval net --eps 8                                | --eps        | [0, 1], got 8; did you mean 8/255
eval net --eps 8/0                              | --eps        | numbers or fractions such as 8/255
eval net --results text.txt                     | --results    | must be a directory
eval '' --suite clean                           | a word     | of the command is empty
eval net --results=                             | --results    | has an empty value; give one
eval empty.py                                   | empty.py     | empty.py:network
eval net --source photos                        | --source     | did you mean 'folder:photos'
eval net --source fashion_mnist_smal            | --source     | did you mean 'fashion_mnist_small'
eval net --source tfds:cifar10_corrupted/fog_2  | fog_2        | not prepared in
eval net --eps big                              | --eps        | numbers or fractions such as 8/255
eval net --eps=-0.1                             | --eps        | a finite number >= 0
eval net --eps nan --suite linf                 | --eps        | a finite number >= 0
eval net --suite linf l2 --eps 0.1              | --eps        | for one norm
eval net --suite apgd l2 --eps 0.1              | --eps        | attack in linf, l2
eval net --suite clean --eps 0.1                | --eps        | got suite clean
eval net --norm l3                              | --norm       | one of linf, l2, l1
eval net --steps 0                              | --steps      | an integer >= 1
eval net --steps -1                             | --steps      | an integer >= 1
eval net --restarts 0                           | --restarts   | an integer >= 1
eval net --eot-samples 0                        | --eot-samples | an integer >= 1
eval net --draws 0                              | --draws      | an integer >= 1
eval net --examples 0                           | --examples   | an integer >= 1
eval net --examples 2001                        | --examples   | between 1 and the 2000
eval net --examples 1e3                         | --examples   | an integer, got '1e3'
eval net --batch-size 0                         | --batch-size | an integer >= 1
eval net --batch-size 3                         | --batch-size | a positive multiple
eval net --points 3                             | --points     | one of 9, 4, 2
eval net --suite linf --eps --examples 9        | --eps        | needs at least one value
eval net --suite corruptions --severities       | --severities | needs at least one value
eval net --suite clean --suite linf             | --suite      | give it once, with all values
eval net --suite=clean --suite linf             | --suite      | give it once, with all values
eval net --suite linf --eps 0.1 --eps=0.2       | --eps        | give it once, with all values
eval net --suite corruptions --severities 1-5   | --severities | integers with spaces between them
eval net --suite l2 --eps 1e30                  | --eps        | at most 28 in norm l2
eval net --gallery-norm l1 --gallery-eps 1e9    | --gallery-eps | at most 784 in norm l1
eval net --steps 100000000000000000000          | --steps      | <= 2147483647
eval net --results empty.py/there               | --results    | Not a directory
eval net --results barred/there                 | --results    | Permission denied
eval barred/run                                 | barred/run   | Permission denied
eval net --seed=-1                              | --seed       | an integer >= 0
eval net --workers=-1                           | --workers    | an integer >= 0
eval net --noise loud                           | --noise      | one of fresh, frozen
eval net --noise frozen_attack                  | --noise      | one of fresh, frozen
eval net --test-noise loud                      | --test-noise | neuronal:SCALE,LEVEL
eval net --test-noise gaussian:x                | --test-noise | 'x' is not a number
eval net --test-noise gaussian:-1               | --test-noise | a finite number >= 0
eval net --attack-noise neuronal:1              | --attack-noise | neuronal:SCALE,LEVEL
eval net --attack-noise loud                    | --attack-noise | same, frozen, trained, none
eval net --suite clean --attack-noise none      | --attack-noise | l2, l1, gallery; got clean
eval net --suite linf --norm l2                 | --norm       | masking, minimal; got linf
eval net --suite linf --transfer-from net       | --transfer-from | the suite masking; got linf
eval net --suite apgd --steps 7                 | --steps      | worst, gallery; got apgd
eval net --suite apgd linf --attack-noise none  | --attack-noise | gallery; got apgd
eval net --suite masking --attack-noise frozen  | --attack-noise | 'frozen' is for
eval net --attack-noise none --noise frozen     | --attack-noise | needs noise 'fresh'
eval net --decision mode                        | --decision   | vote
eval net --averaged 3                           | --averaged   | 1 for the decision of a single draw
eval net --decision vote --averaged 1           | --averaged   | >= 2
eval net --loss hinge                           | --loss       | cross_entropy
eval net --step-rule eps                        | --step-rule  | eps/32
eval net --norm-offset -1                       | --norm-offset | >= 0
eval net --order first                          | --order      | box_then_ball
eval net --corruptions fogg                     | --corruptions | did you mean 'fog'
eval net --corruptions frost                    | --corruptions | frost_procedural
eval net --severities 6                         | --severities | 1
eval net --form png                             | --form       | jpeg85
eval net --masking-images 0                     | --masking-images | an integer >= 1
eval net --gallery-images 0                     | --gallery-images | an integer >= 1
eval net --gallery-eps 2                        | --gallery-eps | did you mean 2/255
eval net --gallery-eps=-1                       | --gallery-eps | a finite number >= 0
eval net --gallery-norm l0                      | --gallery-norm | one of linf, l2, l1
eval net --class-names nofile.txt               | --class-names | No such file
eval net --class-names utf16.txt                | --class-names | text in UTF-8; save it as UTF-8
eval net --class-names empty.txt                | --class-names | each line, got an empty file
train leave.py                                  | leave.py     | SystemExit: 0
eval net --distributed here                     | --distributed | auto or HOST:PORT,N,I
eval net --split trian                          | --split      | splits are train, test
eval net --source folder:nowhere                | --source     | is not a directory
eval net --source cifar10                       | --source     | did you mean 'tfds:cifar10'
eval net --data-dir void                        | --data-dir   | is for 'tfds:' sets
eval net --tag a/b                              | --tag        | letters, digits
eval net --suite corruptions --corruptions frost --frost-dir void | --frost-dir | frost1.png
eval net --suite corruptions --corrupted-files npy:nowhere | --corrupted-files | not a directory
eval net --suite corruptions --corrupted-files folder:photos | photos has no | ask for one of these
eval net --suite corruptions --corrupted-files npy:void | void has no | has none; name another
eval net --suite corruptions --corrupted-files zip:nowhere | --corrupted-files | 'npy:<path>'
eval net --suite autoattack --eot-samples 3        | --eot-samples | is for the suites linf
eval net --suite clean --steps 8                | --steps      | is for the suites linf, l2
eval net --suite clean physiology --points 2    | --points     | is for the suites linf, l2, l1;
eval net --suite apgd --points 2                | --points     | is for the suites linf, l2, l1;
eval net --suite clean --gallery-images 4       | --gallery-images | is for the suite gallery;
eval net --suite clean --layers stem            | --layers     | is for the suite physiology;
eval net --suite linf --severities 3            | --severities | is for the suites corruptions
eval net --suite clean --corrupted-files npy:void | --corrupted-files | for the suites corruptions
eval net --corrupted-files tfds:cifar10_corrupted | not prepared | tfds build cifar10_corrupted/
eval net --suite masking --transfer-from nosuch | --transfer-from | a directory of train.py
eval net --matmul-precision low                 | --matmul-precision | default, high, highest
eval net --suite physiology --layers nosuch     | --layers     | got 'nosuch'
eval net --suite physiology --layers stme        | --layers     | did you mean 'stem'
eval net --suite physiology --references no.csv | --references | there is no file
eval net --suite physiology --textures nowhere  | --textures   | is not a directory
sweep                                           | SWEEP        | laboratory/components
sweep --dry-run                                 | SWEEP        | is missing; see --help
sweep nosuch                                    | nosuch       | laboratory/components
sweep laboratory/headlines                      | headlines    | did you mean 'laboratory/headline'
sweep quickstart/resnet18                       | quickstart/resnet18 | python train.py
sweep s --shard 3                               | --shard      | INDEX/COUNT such as 3/8
sweep s --shard 9/8                             | --shard      | 1 <= INDEX <= COUNT
sweep s --only trian                            | --only       | did you mean 'train'
sweep s --weights nowhere --dry-run             | --weights    | sweeps that open networks
sweep s --runs text.txt                         | --runs       | must be a directory
sweep s --runs barred/there                     | --runs barred/there: P | Permission denied
sweep s --dryrun                                | --dryrun     | did you mean --dry-run
sweep s --source nosuch                         | --source     | 'folder:<path>'
sweep s --source photos                         | --source     | did you mean 'folder:photos'
sweep s --source folder:nowhere                 | --source     | is not a directory
sweep s --only report --shard 1/3               | --shard      | must be left out
sweep s --only                                  | --only       | train, evaluate, report
report                                          | RUN_DIR      | required
report nosuch                                   | nosuch       | does not exist
report void                                     | void         | make them with
report text.txt                                 | text.txt     | is not a directory
report void --v1-match                          | --v1-match   | needs --tables DIR
report void --tables x --v1-match 0             | --v1-match   | an integer >= 1
report --v1-match void                          | --v1-match   | without RADII behind the run dir
report void --tables text.txt                   | --tables     | must be a directory
report void --out void                          | --out        | is a directory
report void --out barred/page.html              | --out        | Permission denied
report void --tables barred/there               | --tables     | Permission denied
report void --out ''                            | --out        | has an empty value; give one
report void --table x                           | --table      | did you mean '--tables'
report void --tabels x                          | --tabels     | did you mean '--tables'
prepare                                         | COMMAND      | required
"""
LINES = [[cell.strip() for cell in line.split(" | ")] for line in TABLE.strip().splitlines()]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with files to name, the network ``net``, and no way to compute anything.

    The process may not look into its folder ``barred``.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "void").mkdir()
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "leave.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "utf16.txt").write_text("cat\ndog\n", encoding="utf-16")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "empty.pth").write_text("")
    photographs = (f"photos/{name}/{i}.png" for name in ("cat", "dog") for i in range(6))
    write_photographs(tmp_path, *photographs, size=(40, 30))

    def never(*arguments, **options):
        raise AssertionError("a wrong command line got as far as this")

    opened = evaluate.open_network

    def open_network(spec, **options):
        if spec != "net":
            return opened(spec, **options)
        return Network(
            *("net", lambda keys, images: np.zeros((len(images), 10)), (28, 28, 1)),
            class_names=tuple(map(str, range(10))),
            features=lambda keys, images: {"stem": images},
            validation=Split("fashion_mnist_small", "test", None),
        )

    def unless_barred(function):
        def call(path, *arguments, **options):
            if str(path).startswith("barred/"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path, *arguments, **options)

        return call

    for name in ("stat", "mkdir"):
        monkeypatch.setattr(os, name, unless_barred(getattr(os, name)))
    monkeypatch.setattr(evaluate, "open_network", open_network)
    monkeypatch.setattr(evaluation, "evaluate", never)
    monkeypatch.setattr("vone_jax.training.loop._random_state", never)
    monkeypatch.setattr("vone_jax.sweep._execute", never)
    return tmp_path


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_wrong_command_line_says_what_is_wrong_and_the_cure(line, workplace, capsys):
    command, name, cure, *status = line
    for short, full in SHORT.items():
        command = (
            f"{full}{command.removeprefix(short)}"
            if f"{command} ".startswith(f"{short} ")
            else command
        )
    program, *argv = shlex.split(command)
    before = sorted(workplace.rglob("*"))
    try:
        ended = MAINS[program](argv)
    except SystemExit as stop:
        ended = stop.code
    shown = capsys.readouterr()
    assert ended == int(status[0]) if status else ended == cli.WRONG_ARGUMENTS
    assert shown.out == ""
    assert name in shown.err and cure in " ".join(shown.err.split())
    # A command without arguments shows its help, and one without a known config their list.
    if argv:
        assert program in shown.err.partition(": ")[0]
        assert shown.err.count("\n") == 1 or "no config" in shown.err
    assert "Traceback" not in shown.err and "Errno" not in shown.err
    # Python itself keeps the bytecode of a function's file.
    after = [path for path in sorted(workplace.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before, "something was written"


def test_the_table_is_long():
    assert len(LINES) >= 120
