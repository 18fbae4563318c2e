"""Reference samples equal those that zennit-crp 0.6.0 with zennit 0.5.1 finds, and its files are read."""

import pathlib

import jax
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites, concepts
from jaxlrp.concepts.opened import By

import formula
import networks

GOLDENS = np.load(pathlib.Path(__file__).with_name("zennit_crp_files.npz"))
LAYERS = ("conv2", "conv4")
WAYS: list[tuple[By, bool]] = [
    ("relevance", True),
    ("activation", True),
    ("relevance_max", False),
    ("activation_max", False),
]
RTOL = 1e-6  # both sides compute in float64; what is left is rounding, amplified by the networks

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The files as zennit-crp has written them."""
    folder = tmp_path_factory.mktemp("zennit_crp")
    for name in GOLDENS.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, GOLDENS[name])
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    out = tmp_path_factory.mktemp("scores") / "store"
    net = networks.NETWORKS["vgg"]
    explain = lrp.explain(net.function, composites.epsilon_plus(), argnums=1)
    families = {layer: concepts.Channels(f"{layer}/kernel", axis=1) for layer in LAYERS}
    with jax.enable_x64(True):
        concepts.collect(
            explain,
            families,
            formula.data_set(),
            out,
            args=(net.params,),
            batch_size=16,
            progress="none",
        )
    return concepts.open_scores(out)


@pytest.mark.parametrize("target", [None, *range(formula.CLASSES)])
@pytest.mark.parametrize(("by", "normalized"), WAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_reference_samples(theirs, store, layer, by, normalized, target):
    expected = concepts.read_zennit(theirs, layer, by=by, normalized=normalized, target=target)
    assert expected.k == (40 if target is None else {0: 15, 1: 25, 2: 15, 3: 5}[target])
    classes = False if target is None else [target]
    found = store.top(layer, expected.k, by, normalized=normalized, per_class=classes)
    found = found if target is None else found[0]
    np.testing.assert_allclose(
        found.values, expected.values, rtol=RTOL, atol=RTOL * np.abs(expected.values).max()
    )
    # equal scores, such as those of channels that no pixel uses, are in any order in their files
    apart = RTOL * np.abs(expected.values).max()
    gaps = np.abs(np.diff(expected.values, axis=-1)) > apart
    clear = np.pad(gaps, [(0, 0), (1, 0)], constant_values=True)
    clear[:, :-1] &= gaps
    clear[:, -1] &= expected.k < 40  # whether it is the last one or the next
    assert clear.mean() > 0.3  # half of the largest pixels of "conv4" are zeros
    np.testing.assert_array_equal(found.rows[clear], expected.rows[clear])
    # where no pixel has positive relevance, which of the zeros is largest means nothing
    largest = getattr(store[layer], f"{by.removesuffix('_max')}_max")[:]
    largest = largest[found.rows, np.arange(len(found.rows))[:, None]]
    seen = clear & ((largest > RTOL) | by.startswith("activation"))
    np.testing.assert_array_equal(found.positions[seen], expected.positions[seen])


def test_the_same_files_are_written(theirs, store, tmp_path):
    for by, normalized in WAYS:
        concepts.write_zennit(tmp_path, store, by=[by], normalized=normalized)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.glob("**/*.npy")} == set(GOLDENS.files)
    for name in GOLDENS.files:
        assert np.load(tmp_path / name).shape == GOLDENS[name].shape, name
