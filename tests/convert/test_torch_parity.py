"""Networks of PyTorch with random weights give the same activations after conversion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.convert.conftest import equal
from tests.convert.torch_writer import Stored, archive, tensor
from vone_jax import convert, models, v1
from vone_jax.convert.checkpoint import read_checkpoint
from vone_jax.models.vit import resize_positions

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: convert)")
torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
torch_networks = pytest.importorskip("tests.convert.torch_networks")
pytestmark = pytest.mark.extras

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)


def images(size, count=2):
    return np.random.default_rng(0).random((count, size, size, 3)).astype(np.float32)


def randomised(network, seed=0):
    """Random weights and statistics, so that no layer is a special case. For evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
    return network.eval()


def theirs(network, x, mean, std):
    """Return the logits of a network of PyTorch."""
    images = np.ascontiguousarray(((x - mean) / std).transpose(0, 3, 1, 2))
    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def converted(network, path, **kwargs):
    torch.save({"state_dict": network.state_dict(), **kwargs}, path)
    return convert.from_torch(path)


def logits_of(model, variables, x):
    # The weights are an argument: as constants, XLA would transpose them when it compiles.
    classify = jax.jit(lambda logits_fn, x: logits_fn(jax.random.key(0), x))
    return np.asarray(classify(models.logits_fn(model, variables), x))


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", 96), ("resnet50", 64), ("alexnet", 128), ("efficientnet_b0", 64)],
)
def test_torchvision(name, size, tmp_path):
    torch.manual_seed(0)
    network = randomised(torchvision.models.get_model(name, weights=None, num_classes=10))
    x = images(size)
    expected = theirs(network, x, *IMAGENET)
    model, variables = converted(network, tmp_path / "net.pth")
    assert model == models.create(name, 10)
    tolerance = min(2e-4, 1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(logits_of(model, variables, x), expected, rtol=0, atol=tolerance)


def random_weights(network, seed=0):
    """Every tensor at random, so that no layer is a special case. For evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            is_scale = tensor.ndim == 1 and name.endswith("weight") or "scale" in name
            tensor.normal_(0, 0.2, generator=generator).add_(float(is_scale or "gamma" in name))
    return network.eval()


def trunk(name):
    """A small transformer or ConvNeXt of a library, its image size, and its normalisation."""
    if name.startswith("timm"):
        timm = pytest.importorskip("timm", reason="timm is not installed")
        if name.startswith("timm-vit"):
            make, normalisation = timm.models.vision_transformer.VisionTransformer, (0.5, 0.5)
            size, fields = 48, {"patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2}
            if name == "timm-vit-odd":
                size, fields = 35, {"patch_size": 5, "embed_dim": 96, "depth": 3, "num_heads": 2}
            if name == "timm-vit-deit3":
                fields |= {"no_embed_class": True, "init_values": 1e-6}
                normalisation = IMAGENET
            return make(img_size=size, num_classes=7, **fields), size, normalisation
        make = timm.models.convnext.ConvNeXt
        if name == "timm-convnext-odd":
            fields = {"depths": (2, 1, 4, 1), "dims": (6, 12, 24, 48), "num_classes": 3}
            return make(**fields), 70, IMAGENET
        fields = {"depths": (1, 2, 1, 1), "dims": (8, 16, 32, 64), "num_classes": 7}
        # The name of the small networks is their layer "mlp" as 1x1 convolutions.
        fields["conv_mlp"] = name == "timm-convnext-small"
        return make(**fields), 64, IMAGENET
    if name == "torchvision-vit":
        return (
            torchvision.models.VisionTransformer(48, 8, 2, 2, 128, 512, num_classes=7),
            48,
            IMAGENET,
        )
    from torchvision.models.convnext import CNBlockConfig

    settings = [(8, 16, 1), (16, 32, 2), (32, 64, 1), (64, None, 1)]
    network = torchvision.models.ConvNeXt(
        [CNBlockConfig(*each) for each in settings], num_classes=7
    )
    return network, 64, IMAGENET


@pytest.mark.parametrize(
    "name",
    [
        *("timm-vit", "timm-vit-odd", "timm-vit-deit3", "timm-convnext", "timm-convnext-odd"),
        "timm-convnext-small",
        *("torchvision-vit", "torchvision-convnext"),
    ],
)
def test_transformers_and_convnexts(name, tmp_path):
    """Logits, features, and the file that goes back into the library's own class."""
    network, size, normalisation = trunk(name)
    network = random_weights(network)
    x = images(size)
    expected = theirs(network, x, *normalisation)
    model, variables = converted(network, tmp_path / "net.pth")
    found = jax.jit(models.features_fn(model, variables))(jax.random.key(0), x)
    scale = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=scale)
    if name.startswith("timm"):
        features = theirs(network.forward_features, x, *normalisation)
        if "vit" in name:
            tokens = np.reshape(found["norm"], (len(x), -1, features.shape[-1]))
            ours = np.concatenate([found["class_token"][:, None], tokens], axis=1)
        else:
            ours = np.transpose(found["stage4"], (0, 3, 1, 2))
        np.testing.assert_allclose(ours, features, rtol=0, atol=1e-5 * np.abs(features).max())
    if name == "timm-convnext-small":
        return
    back = tmp_path / "back.pth"
    convert.save_torch(back, model, variables, convention=name.partition("-")[0])
    network.load_state_dict(torch.load(back, weights_only=True)["state_dict"], strict=True)
    np.testing.assert_array_equal(theirs(network, x, *normalisation), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs_name", "name"),
    [
        ("vit_base_patch16_224", "vit_b16"),
        ("vit_large_patch16_224", "vit_l16"),
        ("deit3_small_patch16_224", "deit3_s16"),
        ("convnext_small", "convnext_s"),
        ("convnext_base", "convnext_b"),
    ],
)
def test_published_sizes_have_the_logits_of_timm(theirs_name, name, tmp_path):
    """At full size, with random weights; timm computes in float64."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network = timm.create_model(theirs_name, num_classes=7)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.named_parameters():
            norm = tensor.ndim == 1 and key.endswith("weight")
            size = (tensor[0].numel() ** -0.5) if tensor.ndim > 1 else 0.1
            tensor.normal_(0, size, generator=generator)
            tensor.add_(1.0 if norm else 0.3 if "gamma" in key else 0.0)
    network.eval()
    model, variables = converted(network, tmp_path / "net.pth")
    assert model.spec == models.create(name, 7).spec
    x = images(224)
    mean, std = np.array([model.spec.mean, model.spec.std])
    expected = theirs(network.double(), x.astype(np.float64), mean, std)
    ours = logits_of(model, variables, x)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_tables_of_odd_grids_are_resized_as_in_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    rng = np.random.default_rng(0)
    for side in (1, 3, 7, 14):
        table = rng.standard_normal((1, 1 + side**2, 4)).astype(np.float32)
        for grid in ((1, 1), (2, 2), (5, 5), (13, 13), (24, 24), (5, 9)):
            expected = timm.layers.resample_abs_pos_embed(
                torch.from_numpy(table), list(grid), interpolation="bicubic"
            )
            ours = resize_positions(jnp.asarray(table), *grid)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [32, 40, 96])
def test_a_table_of_positions_is_resized_as_in_timm(size, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network, _, normalisation = trunk("timm-vit")
    network = random_weights(network)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    model, variables = convert.from_torch(tmp_path / "net.pth", image_size=size)
    resample = timm.layers.resample_abs_pos_embed
    with torch.no_grad():
        table = resample(network.pos_embed, [size // 8, size // 8], interpolation="bicubic")
    ours = variables["params"]["back_end"]["tokens"]["position"]
    np.testing.assert_allclose(ours, table, rtol=0, atol=1e-5 * table.abs().max().item())
    network.set_input_size(size)
    x = images(size)
    expected = theirs(network, x, *normalisation)
    logits = logits_of(model, variables, x)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_the_size_of_images_does_not_change_the_strides_of_torchvision(tmp_path):
    """A ResNet-18 that was trained at 64 pixels, and one of ours with stride 1 in PyTorch."""
    network = randomised(torchvision.models.resnet18(weights=None, num_classes=10))
    x, path = images(64), tmp_path / "net.pth"
    torch.save(network.state_dict(), path)
    model, variables = convert.from_torch(path, image_size=64)
    expected = theirs(network, x, *IMAGENET)
    np.testing.assert_allclose(logits_of(model, variables, x), expected, rtol=0, atol=2e-4)

    ours = models.create("resnet18", 10, 64)
    with pytest.warns(UserWarning, match="gives other logits"):
        convert.save_torch(path, ours, variables)
    network.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    network.conv1.stride = (1, 1)
    expected = theirs(network, x, *IMAGENET)
    np.testing.assert_allclose(logits_of(ours, variables, x), expected, rtol=0, atol=2e-4)
    assert convert.from_torch(path)[0] == ours


def test_resnet18_layer_by_layer(tmp_path):
    torch.manual_seed(1)
    network = randomised(torchvision.models.resnet18(weights=None, num_classes=10))
    names = {"maxpool": "stem", **{f"layer{i}": f"layer{i}" for i in range(1, 5)}, "fc": "logits"}
    expected = {}
    for module, name in names.items():
        network.get_submodule(module).register_forward_hook(
            lambda _, __, output, name=name: expected.update({name: output.numpy()})
        )
    x = images(96)
    theirs(network, x, *IMAGENET)
    model, variables = converted(network, tmp_path / "net.pth")
    layers = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, x)
    for name, output in expected.items():
        ours = np.asarray(layers[name])
        ours = ours.transpose(0, 3, 1, 2) if ours.ndim == 4 else ours
        np.testing.assert_allclose(
            ours, output, rtol=0, atol=1e-5 * np.abs(output).max(), err_msg=name
        )


def test_cornet_s(tmp_path):
    torch.manual_seed(2)
    network = randomised(torch_networks.CORnetS(16, 10))
    x = images(64)
    expected = theirs(network, x, *IMAGENET)
    model, variables = converted(network, tmp_path / "net.pth")
    assert model == models.create("cornet_s", 10, width=16)
    np.testing.assert_allclose(logits_of(model, variables, x), expected, rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def vone_cornet_s():
    """A VOneCORnet-S whose two phases read different channels, with a bank of another seed."""
    torch.manual_seed(3)
    back_end = torch_networks.CORnetS(16, 10)
    back_end.V1 = torch.nn.Identity()
    network = torch_networks.VOneNet(torch_networks.FrontEnd(24, 8), back_end, 16)
    kernels = v1.gabor_kernels(v1.sample_gabor_parameters(32, seed=4), 25, 28.0)
    rng = np.random.default_rng(0)
    for conv, values in zip(
        (network.vone_block.simple_conv_q0, network.vone_block.simple_conv_q1), kernels, strict=True
    ):
        weights = np.zeros((32, 3, 25, 25), np.float32)
        weights[np.arange(32), rng.integers(0, 3, 32)] = values
        conv.weight.data = torch.from_numpy(weights)
    return randomised(network)


FLAGS = {
    "model_arch": "cornets",
    "stride": 4,
    "simple_channels": 24,
    "complex_channels": 8,
    "k_exc": 25.0,
    "noise_mode": None,
    "gabor_seed": 4,
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_vonenet(vone_cornet_s, tmp_path, wrapped, zipped):
    network = torch.nn.DataParallel(vone_cornet_s) if wrapped else vone_cornet_s
    path = tmp_path / "net.pth.tar"
    optimizer = torch.optim.SGD(vone_cornet_s.parameters(), 0.1, momentum=0.9)
    states = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
    content = {"epoch": 3, "flags": FLAGS, **states}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    conversion = convert.read(path)
    assert any("of seed 4, sf_max 9" in note for note in conversion.notes)
    if not (wrapped and zipped):  # The same variables: one compilation is enough.
        assert equal(convert.to_torch(conversion.model, conversion.variables), _arrays(network))
        return
    x = images(96)
    expected = theirs(vone_cornet_s, x, 0.5, 0.5)
    logits = logits_of(conversion.model, conversion.variables, x)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-4)


def _arrays(network):
    return {n.removeprefix("module."): t.numpy() for n, t in network.state_dict().items()}


def test_a_saved_network_loads_into_the_original_class(vone_cornet_s, tmp_path):
    path = tmp_path / "net.pth"
    model, variables = converted(vone_cornet_s, path, flags=FLAGS)
    back = tmp_path / "back.pth"
    convert.save_torch(back, model, variables, prefix="module.")
    loaded = torch.load(back, weights_only=True)
    assert loaded["flags"]["arch"] == "cornets" and loaded["flags"]["noise_mode"] is None
    assert loaded["flags"]["simple_channels"] == 24
    other = torch.nn.DataParallel(
        torch_networks.VOneNet(torch_networks.FrontEnd(24, 8), torch_networks.CORnetS(16, 10), 16)
    )
    other.module.model.V1 = torch.nn.Identity()
    other.load_state_dict(loaded["state_dict"], strict=True)
    assert equal(_arrays(other), _arrays(vone_cornet_s))


def test_types_and_views_are_read_as_torch_reads_them(tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    content = {
        "a": base.reshape(4, 6).T,
        "b": base[5:9],
        "c": torch.nn.Parameter(base.double()),
        "d": base.half(),
        "e": torch.tensor(3),
        "f": base[:1].expand(5),
        "g": torch.zeros(0, 2),
        "h": base.to(torch.bool),
        "i": torch.ones(1).expand(5),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        expected = torch.load(path, weights_only=True)
        arrays = read_checkpoint(path).state_dict
        assert equal(arrays, {name: t.detach().numpy() for name, t in expected.items()})


def test_our_test_files_are_read_by_torch(tmp_path):
    """The hand-written files of the other tests are files of torch.save."""
    storage = Stored("0", np.arange(6, dtype=np.float32))
    path = tmp_path / "x.pth"
    path.write_bytes(archive({"a": tensor(storage, (2, 3))}, [storage]))
    loaded = torch.load(path, weights_only=True)
    np.testing.assert_array_equal(loaded["a"].numpy(), np.arange(6).reshape(2, 3))
