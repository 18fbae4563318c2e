"""Tests of the graph network of molecules: against chemprop, by hand, and its relevance."""

import csv
import doctest
import importlib.machinery
import importlib.util
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.pretrained import _weights
from jaxlrp.pretrained.admet import MEMBERS, PROPERTIES, TASKS, DirectedMPNN, admet, molecules

GOLDEN = Path(__file__).parent / "parity" / "admet.npz"
PACKAGE = "admet_ai"
INSTALL = r"pip install --no-deps admet-ai==2\.0\.1"


@pytest.fixture(scope="module", autouse=True)
def rdkit():
    return pytest.importorskip("rdkit", reason="rdkit is not installed (extra: molecules)")


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def graph(golden):
    return molecules(golden["smiles"].tolist())


@pytest.fixture(scope="module")
def members():
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed ({INSTALL})".replace("\\", ""))
    return [admet(i) for i in range(MEMBERS)]


# Molecules.


def test_features_equal_those_of_chemprop(golden, graph):
    assert graph.atoms.dtype == graph.bonds.dtype == np.float32
    np.testing.assert_array_equal(graph.atoms, golden["atoms"])
    np.testing.assert_array_equal(graph.bonds, golden["bonds"])
    np.testing.assert_array_equal(graph.bonding.sources, golden["sources"])


def test_bonding_by_hand():
    """CCO and a lone atom: C0-C1 and C1-O2, each in both directions."""
    bonding = molecules(["CCO", "N"]).bonding
    assert {array.dtype for array in bonding} == {np.dtype(np.int32)}
    assert bonding.sources.tolist() == [0, 1, 1, 2]
    assert bonding.targets.tolist() == [1, 0, 2, 1]
    # 0>1 goes on to 1>2, and 2>1 to 1>0; nothing goes straight back
    assert list(zip(bonding.senders, bonding.receivers, strict=True)) == [(0, 2), (3, 1)]
    assert bonding.molecule.tolist() == [0, 0, 0, 1]
    assert bonding.sizes.tolist() == [3, 1]


def test_a_molecule_without_bonds():
    graph = molecules(["O"])
    assert [array.shape for array in graph[:2]] == [(1, 72), (0, 14)]
    assert graph.bonding.senders.shape == (0,)


def test_what_is_padded_takes_part_in_nothing(members):
    net = members[0]
    tight = net.preprocess(["CC=O", "c1ccccc1"])
    loose = net.preprocess(["CC=O", "c1ccccc1"], (13, 20, 33))
    assert [len(a) for a in (*loose[:2], loose.bonding.senders)] == [13, 20, 33]
    expected = net.model.apply(net.variables, *tight)
    np.testing.assert_allclose(net.model.apply(net.variables, *loose), expected, rtol=1e-5)
    explain = lrp.explain(net.model.apply, argnums=(1, 2))
    of_atoms, of_bonds = explain(net.variables, *loose, target=0).relevance
    tight_atoms, tight_bonds = explain(net.variables, *tight, target=0).relevance
    np.testing.assert_allclose(of_atoms[:9], tight_atoms, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(of_bonds[:16], tight_bonds, rtol=1e-3, atol=1e-5)
    assert not np.asarray(of_atoms[9:]).any()
    assert not np.asarray(of_bonds[16:]).any()


@pytest.mark.parametrize(
    ("smiles", "padded", "error", "message"),
    [
        ("CC", None, TypeError, r"sequence of strings, got a single one: write \['CC'\]"),
        ([], None, ValueError, "have at least one molecule, got none"),
        (["CC", "C1C"], None, ValueError, "smiles must be valid, got 'C1C'"),
        ([""], None, ValueError, "smiles must be valid, got ''"),
        (
            ["CC"],
            (2, 1, 0),
            ValueError,
            r"padded must be at least \(2, 2, 0\), .*, got \(2, 1, 0\)",
        ),
    ],
    ids=itertools.count(),
)
def test_what_are_no_molecules_is_refused(smiles, padded, error, message):
    with pytest.raises(error, match=message):
        molecules(smiles, padded)


def test_a_missing_rdkit_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r'needs rdkit.* pip install "jaxlrp\[molecules\]"$'):
        molecules(["C"])


# The network.


def test_logits_equal_those_of_chemprop(members, golden, graph):
    assert TASKS == members[0].labels == tuple(golden["tasks"])
    apply = jax.jit(members[0].model.apply)
    for net, expected in zip(members, golden["logits"], strict=True):
        logits = apply(net.variables, *graph)
        assert logits.dtype == jnp.float32
        # float32 against float64; logits are as large as 15
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-5)


def test_logits_in_float64_equal_those_of_chemprop(members, golden, graph):
    with jax.enable_x64(True):
        net = members[3]
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), net.variables
        )
        inputs = (graph.atoms.astype(np.float64), graph.bonds.astype(np.float64))
        logits = net.model.apply(variables, *inputs, graph.bonding)
    np.testing.assert_allclose(logits, golden["logits"][3], rtol=1e-10, atol=1e-10)


def test_molecules_of_a_batch_are_read_as_alone(members, golden):
    net = members[0]
    one = net.preprocess([golden["smiles"][3].item()])
    np.testing.assert_allclose(
        net.model.apply(net.variables, *one)[0], golden["logits"][0, 3], rtol=1e-5, atol=1e-5
    )


def test_parameters(members):
    leaves = jax.tree.leaves(members[0].variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert sum(leaf.size for leaf in leaves) == 86 * 300 + 90_000 + 372 * 300 + 300 + 90_300 + 9331
    assert len(repr(members[0])) < 200  # without the arrays
    assert PACKAGE not in sys.modules  # nothing of it was run
    assert "torch" not in sys.modules


def test_the_example_of_the_docstring(members):
    test = doctest.DocTestParser().get_doctest(admet.__doc__, {}, "admet", None, None)
    for example in test.examples:
        example.options.clear()  # skipped elsewhere, for want of the weights
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))


@pytest.mark.parametrize("member", [-1, 5])
def test_a_member_that_there_is_not(member):
    with pytest.raises(ValueError, match=f"member must be from 0 to 4, got {member}"):
        admet(member)


def test_a_missing_package_is_named(monkeypatch):
    for spec in (None, importlib.machinery.ModuleSpec(PACKAGE, None)):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _, spec=spec: spec)
        with pytest.raises(ImportError, match=rf"weights of admet .* not installed: {INSTALL}$"):
            admet()


def test_weights_of_another_network_are_refused(members, monkeypatch):
    monkeypatch.setattr(_weights, "to_linen", lambda *_: {"params/x": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=r"model_2\.pt of admet_ai does not contain the weights"):
        admet(2)


# Its relevance. The weights are random, so that these tests need none.


def test_relevance_of_a_network_without_biases_is_the_logit():
    """In float64, with next to no epsilon; and of each molecule apart from the others."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        atoms, bonds, bonding = molecules(["CC(C)=O", "C1CC1N", "O"])
        inputs = (atoms.astype(np.float64), bonds.astype(np.float64), bonding)
        model = DirectedMPNN(features=7, tasks=3)
        shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
        variables = jax.tree.map(
            lambda leaf: (
                rng.normal(size=leaf.shape) if len(leaf.shape) > 1 else np.zeros(leaf.shape)
            ),
            shapes,
        )
        explain = lrp.explain(model.apply, composites.all_epsilon(1e-14), argnums=(1, 2))
        result = explain(variables, *inputs, target=np.array([2, 0, 1]))
    of_atoms, of_bonds = (np.asarray(r).sum(axis=-1) for r in result.relevance)
    total = np.zeros(3)
    np.add.at(total, bonding.molecule, of_atoms)
    np.add.at(total, bonding.molecule[bonding.sources], of_bonds)
    expected = np.asarray(result.output)[range(3), [2, 0, 1]]
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert np.abs(expected).min() > 1e-3


# Regressions.


def test_regressions_equal_the_predictions_of_the_package():
    """It comes with a table of drugs: the mean of its five networks, computed by chemprop."""
    if importlib.util.find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed ({INSTALL})".replace("\\", ""))
    folder = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0])
    with (folder / "resources/data/drugbank_approved.csv").open(encoding="utf-8") as file:
        rows = list(itertools.islice(csv.DictReader(file), 12))
    nets = [admet(i, "regression") for i in range(MEMBERS)]
    assert nets[0].labels == tuple(PROPERTIES)
    graph = nets[0].preprocess([row["smiles"] for row in rows])
    apply = jax.jit(nets[0].model.apply)
    found = np.mean([apply(net.variables, *graph) for net in nets], axis=0)
    expected = np.array([[float(row[name]) for name in PROPERTIES] for row in rows])
    # float32, in units whose values reach a few hundred
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="one of classification, regression, got 'both'"):
        admet(kind="both")
