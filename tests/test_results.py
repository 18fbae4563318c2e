"""What can be done with an explanation: files, Flax state dictionaries, tables, figures."""

import dataclasses
import json
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

import jaxlrp as lrp

W = jnp.array([[1.0, -2.0], [0.5, 1.5], [2.0, 0.0]])


def everything():
    """An explanation with all its parts, and a pytree of each container in one of them."""
    nested = {"image": jnp.ones((2, 3)), "more": (jnp.arange(2), [None, "a", 3, 0.1, True])}
    record = lrp.Record(jnp.ones(2, jnp.bfloat16), jnp.zeros((), bool))
    return lrp.Explanation(
        output=jnp.float32(2.5),
        relevance=nested,
        aux=np.array([1 + 2j, np.nan]),
        records={"b/second": record, "a first": record},
        parameters=(np.zeros((0, 2), np.int8), {7: ()}),
        gains={"b/second": 0.1, "x": float("inf")},
    )


def check_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b))
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_saved_and_loaded(tmp_path):
    expected = everything()
    lrp.save(tmp_path / "result.npz", expected)
    found = lrp.load(str(tmp_path / "result.npz"))
    check_equal(found, expected)
    assert list(found.records) == ["b/second", "a first"]
    assert {type(a) for a in jax.tree.leaves(found) if hasattr(a, "dtype")} == {np.ndarray}
    lrp.save(tmp_path / "result.npz", lrp.explain(lambda x: x @ W)(jnp.ones(3), target=1))
    np.testing.assert_allclose(lrp.load(tmp_path / "result.npz").relevance, W[:, 1], rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["result.npz"]


def test_what_cannot_be_saved(tmp_path):
    path, result = tmp_path / "result.npz", everything()
    lrp.save(path, result)
    kept = path.read_bytes()
    for part, message in [
        (
            {"a": [0, object()]},
            r"relevance\['a'\]\[1\] of the explanation .* it is a object; arrays",
        ),
        ({(1, 2): 3}, r"relevance of the explanation cannot be saved: it is a dict"),
        ([jax.random.key(0)], r"relevance\[0\] of the explanation has dtype key.*key_data"),
    ]:
        with pytest.raises(TypeError, match=message):
            lrp.save(path, dataclasses.replace(result, relevance=part))
    with pytest.raises(TypeError, match=r"output of the explanation is traced"):
        jax.jit(lambda x: lrp.save(path, lrp.Explanation(x, x)))(jnp.ones(2))
    with pytest.raises(TypeError, match=r"must be an Explanation, .* got dict"):
        lrp.save(path, {"relevance": 1})  # pyright: ignore[reportArgumentType]
    assert path.read_bytes() == kept
    assert [p.name for p in tmp_path.iterdir()] == ["result.npz"]


def rewritten(path, change):
    """The file with another header."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    header = json.loads(members["explanation.json"])
    change(header)
    members["explanation.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError):
        lrp.load(path)
    with pytest.raises(TypeError, match="path must be a path, got 3"):
        lrp.load(3)  # pyright: ignore[reportArgumentType]
    message = r"x\.npz' is not a complete file of lrp\.save: "
    lrp.save(path, everything())
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    for data in (b"", b"text", whole[:-40], (tmp_path / "other.npz").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            lrp.load(path)
    for change, why in [
        (lambda h: h.update(version=2), "its version 2 is newer than 1: update jaxlrp"),
        (lambda h: h.update(format="x"), "its format is 'x'"),
        (lambda h: h.pop("aux"), "KeyError: 'aux'"),
        (lambda h: h.update(output={"array": 99, "dtype": "float32"}), "KeyError: .*99.npy"),
        (lambda h: h["output"].update(dtype="object"), "TypeError: Cannot"),
        (lambda h: h["output"].update(dtype="float64"), "ValueError: "),
        (lambda h: h.update(output={"eval": [1]}), "KeyError: 'eval'"),
        (lambda h: h.update(records=[1]), "AttributeError"),
    ]:
        path.write_bytes(whole)
        rewritten(path, change)
        with pytest.raises(ValueError, match=message + f".*{why}"):
            lrp.load(path)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "x.npz"
    lrp.save(path, lrp.Explanation(np.ones(1), np.ones(1)))
    np.save(tmp_path / "0.npy", np.array([Bomb()], object), allow_pickle=True)
    with zipfile.ZipFile(path) as file:
        header = file.read("explanation.json")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("explanation.json", header)
        file.write(tmp_path / "0.npy", "0.npy")
    with pytest.raises(ValueError, match="Object arrays cannot be loaded when allow_pickle=False"):
        lrp.load(path)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(pickle.dumps(Bomb()))


class Bomb:
    def __reduce__(self):
        return explode, ()


def explode():
    raise AssertionError("unpickled")


def test_flax_serialization():
    explain = lrp.explain(lambda p, x: jax.nn.relu(x["a"] @ p), record="*", parameters=0, argnums=1)
    expected = explain(W, {"a": jnp.array([[1.0, 2.0, -1.0]])}, target=0)
    data = serialization.to_bytes(expected)
    blank = jax.tree.map(jnp.zeros_like, expected)
    found = serialization.from_bytes(blank, data)
    check_equal(found, expected)
    assert list(found.records) == ["p", "relu"]
    assert list(serialization.msgpack_restore(data)["relevance"]) == ["a"]
    more = {**blank.records, "other": blank.records["p"]}
    with pytest.raises(ValueError, match="do not match"):
        serialization.from_bytes(dataclasses.replace(blank, records=more), data)


# --- tables ---------------------------------------------------------------------------------------


def explanation(relevance):
    return lrp.Explanation(0.0, relevance)


def test_a_table_in_pandas():
    pytest.importorskip("pandas")
    r = np.arange(6.0).reshape(2, 3)
    table = explanation(jnp.asarray(r, jnp.bfloat16)).to_pandas(["a", "b", "c"], index=["x", "y"])
    assert table.loc["y", "b"] == 4.0
    assert list(explanation(r[0]).to_pandas().columns) == [0, 1, 2]
    assert explanation(r[0]).to_pandas().shape == (1, 3)
    parts = explanation({"age": r[:, 0], "codes": r[:, 1:], "deep": [r[:, 2]]}).to_pandas()
    assert list(parts.columns) == ["age", "codes/0", "codes/1", "deep/0"]
    np.testing.assert_array_equal(parts["codes/1"], r[:, 2])
    for relevance, kwargs, message in [
        (r, {"columns": ["a"]}, "columns must have 3 names, one for each feature, got 1"),
        (r[None], {}, r"relevance must have shape \(samples, features\) .*\(1, 2, 3\): sum over"),
        ({"a": r[0], "b": r}, {}, "as many samples in all its parts, got .*'a': 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            explanation(relevance).to_pandas(**kwargs)


def test_tokens_in_pandas():
    pytest.importorskip("pandas")
    r = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]])
    sentences = [["a", "b"], ["c", "d", "e"]]
    table = explanation(r).to_pandas(tokens=sentences)
    assert table["relevance"].tolist() == [1, 2, 3, 4, 5]
    assert table["sentence"].tolist() == [0, 0, 1, 1, 1]
    assert table["position"].tolist() == [0, 1, 0, 1, 2]
    for values in (r[1], r[1:], np.stack([r[1], 0 * r[1]], 1), np.stack([r[1:], r[1:]], 2) / 2):
        found = explanation(values).to_pandas(tokens=sentences[1])
        assert found["relevance"].tolist() == [3, 4, 5]
        assert found["token"].tolist() == sentences[1]
    for tokens, message in [
        (["a"] * 3, r"1 sentences of \[3\] tokens"),
        ([["a"] * 4] * 2, r"\[4, 4\]"),
    ]:
        with pytest.raises(
            ValueError, match=rf"relevance of shape \(2, 3\) does not fit .*{message}"
        ):
            explanation(r).to_pandas(tokens=tokens)
    with pytest.raises(TypeError, match="leave them out with tokens"):
        explanation(r).to_pandas(["a"], tokens=sentences)


def test_labeled_arrays():
    pytest.importorskip("xarray")
    r = np.arange(6.0).reshape(2, 3)
    found = explanation(r).to_xarray(("sample", "band"), {"band": ["low", "mid", "high"]})
    assert float(found.sel(band="high", sample=1)) == 5.0
    assert (found.name, explanation(r).to_xarray().dims) == ("relevance", ("dim_0", "dim_1"))
    with pytest.raises(ValueError, match=r"dims must have 2 names, .* got \('a',\)"):
        explanation(r).to_xarray(["a"])
    with pytest.raises(TypeError, match=r"has 2: .*relevance\['a'\]"):
        explanation({"a": r, "b": r}).to_xarray()


@pytest.mark.parametrize("package", ["pandas", "xarray"])
def test_a_missing_package_is_named(package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "jaxlrp\[{package}\]"'):
        getattr(explanation(np.ones((2, 2))), f"to_{package}")()


# --- figures --------------------------------------------------------------------------------------


def test_figures_by_shape():
    plot = pytest.importorskip("jaxlrp.plot")
    rng = np.random.default_rng(0)
    r, photo = rng.normal(size=(2, 4, 5, 3)), rng.uniform(size=(2, 4, 5, 3))
    one = explanation(jnp.asarray(r[:1]))
    drawn = one.plot(title="one")
    np.testing.assert_allclose(drawn.images[0].get_array(), r[0].sum(-1), rtol=1e-5, atol=1e-6)
    assert drawn.get_title() == "one"
    over = one.plot(photo[:1]).images[0].get_array()
    np.testing.assert_array_equal(over, plot.to_rgb(one, image=photo[0]))
    both = explanation(r).plot(photo)
    assert len([axes for axes in both.axes if axes.images]) == 4
    channels = explanation(r.transpose(0, 3, 1, 2)).plot(channel_axis=1).axes[1].images[0]
    np.testing.assert_allclose(channels.get_array(), r[1].sum(-1))
    assert explanation(r[0, ..., 0]).plot(kind="image").images
    wave = r[0, :, 0, 0]
    for values in (wave, wave[None]):
        assert explanation(values).plot(wave, sample_rate=2.0).axes[0].get_xlabel() == "time (s)"
    assert explanation(r[0, 0]).plot(r[0, 0], kind="series").axes[2].get_ylabel() == "channel 2"
    words = ["a", "good", "film", "."]
    text = explanation(r[:1, :, 0]).plot(tokens=words)  # embedded: (1, tokens, features)
    assert text.html == plot.text(words, r[0, :, 0].sum(-1)).html
    assert explanation(r[..., 0, 0]).plot(tokens=[words, words[:2]]).html.count("<p") == 2


@pytest.mark.parametrize(
    ("shape", "kwargs", "error", "message"),
    [
        ((4, 5), {}, ValueError, r"\(4, 5\) may be of an image, a text or a series: write .*kind="),
        ((4, 5, 3), {}, ValueError, r"write result.plot\(kind='image'\)"),
        ((4,), {}, ValueError, r"result.plot\(x, kind='series'\)"),
        ((4,), {"kind": "series"}, TypeError, r"a series needs the signal: write result.plot\(x\)"),
        ((4,), {"kind": "text"}, TypeError, r"write result.plot\(tokens="),
        ((4,), {"kind": "table"}, ValueError, "kind must be one of 'image', 'text', 'series', got"),
        ((4,), {"tokens": ["a"]}, ValueError, r"its 1 tokens, got shape \(4,\)"),
    ],
)
def test_ambiguous_figures(shape, kwargs, error, message):
    pytest.importorskip("matplotlib")
    with pytest.raises(error, match=message):
        explanation(np.ones(shape)).plot(**kwargs)


def test_figures_of_parts_and_of_traced_relevance():
    pytest.importorskip("matplotlib")
    with pytest.raises(TypeError, match=r"pass one of them, result.relevance\['a'\]"):
        explanation({"a": np.ones((4, 4)), "b": np.ones(2)}).plot()
    with pytest.raises(TypeError, match="relevance must be a concrete array"):
        jax.jit(lambda r: explanation(r).plot())(jnp.ones((1, 4, 4, 3)))
    html = everything()._repr_html_()
    assert "records[&#x27;b/second&#x27;]" in html
    assert "bfloat16[2]" in html


def _results():
    """Results of every wing that hold arrays, each with more numbers than anyone reads."""
    from jaxlrp import higher_order, improve, spray, uncertainty

    big = jnp.ones((100, 100))
    yield higher_order.Interactions(big[None], big)
    yield uncertainty.Covariance(big, big[None])
    yield improve.Quantized(big, jnp.ones(100))
    yield spray.Embedding(np.ones((100, 2)), np.ones(100))


def test_results_print_shapes_in_place_of_numbers():
    for result in _results():
        assert len(repr(result)) < 120, type(result)
        assert "[100" in repr(result), repr(result)
