"""ONNX files: the standard's own tests of each operator, real files against onnxruntime, scikit-learn.

Optional: `pip install onnx onnxruntime skl2onnx && pip install --no-deps rapidocr-onnxruntime==1.4.4
magika==1.0.3 silero-vad==6.2.3; python -m pytest -m thirdparty`.
"""

from __future__ import annotations

import collections
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC

import jaxlrp as lrp
from jaxlrp import composites
from jaxlrp.onnx import convert
from jaxlrp.onnx.graph import OPERATORS

from foreign_checks import check_closes, check_explained

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.promotes("as ONNX does"),
]

RNG = np.random.default_rng(0)


def session(model: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return runtime.InferenceSession(model if isinstance(model, str) else model.SerializeToString())


LIMIT = 8  # of the tests of an operator
FIRST = {
    "BatchNormalization",
    "Dropout",
    "LayerNormalization",
    "MaxPool",
}  # no other output is known


@functools.cache
def standard() -> dict[str, list[Any]]:
    """The standard's tests of single nodes, by operator."""
    node = importlib.import_module("onnx.backend.test.case.node")
    found = collections.defaultdict(list)
    for case in node.collect_testcases(None):
        nodes = [] if case.model is None else case.model.graph.node
        if len(nodes) == 1 and (nodes[0].domain, nodes[0].op_type) in OPERATORS:
            values = [np.asarray(v) for part in case.data_sets[0] for v in part]
            if all(v.dtype.kind in "biuf" and v.size for v in values):
                found[nodes[0].op_type].append(case)
    return dict(found)


def run(case: Any) -> None:
    """One test of the standard, with the inputs that must be known beforehand as constants."""
    model, (inputs, outputs) = onnx.ModelProto(), case.data_sets[0]
    model.CopyFrom(case.model)
    (node,) = model.graph.node
    static = {
        node.input[i] for i in OPERATORS[node.domain, node.op_type].static if i < len(node.input)
    }
    given = []
    for value, array in zip(model.graph.input, inputs, strict=True):
        if value.name in static:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.asarray(array), value.name)
            )
        else:
            given.append(np.asarray(array))
    names = [value.name for value in model.graph.output]
    names = names[:1] if node.op_type in FIRST else names
    found = convert(model, names)(*given)
    for name, expected in zip(names, outputs, strict=False):
        value = np.asarray(found[name] if len(names) > 1 else found)
        assert value.shape == np.shape(expected), case.name
        half = np.asarray(expected).dtype == np.float16
        np.testing.assert_allclose(
            value, expected, rtol=1e-3, atol=1e-2 if half else 1e-5, err_msg=case.name
        )


@pytest.mark.parametrize("name", sorted(name for domain, name in OPERATORS if not domain))
def test_an_operator_of_the_standard(name):
    cases, refused = standard().get(name, [])[:LIMIT], []
    for case in cases:
        try:
            run(case)
        except (lrp.UnsupportedError, lrp.TrainingModeError) as error:
            refused.append(str(error))
    assert all(name in message for message in refused)
    assert len(refused) < max(len(cases), 1)


def file(package: str, pattern: str) -> str:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    (found,) = Path(spec.submodule_search_locations[0]).rglob(pattern)
    return str(found)


def pixels(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, (2, 3, *shape)).astype(np.float32)


MAGIKA = "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/Dense_1/AddV2:0"
# package and file, input, the value before its softmax or sigmoid, classes, a layer of it
FILES: dict[str, tuple[str, str, Any, str, tuple[int, int], tuple[str, str]]] = {
    "magika": (
        "magika", "model.onnx", RNG.integers(0, 257, (2, 2048)).astype(np.int32), MAGIKA, (2, 1),
        ("jax2tf_get_logits_/pjit_get_logits_/MagikaV2/Conv_0/Conv2D", "Conv"),
    ),
    "detector": (
        "rapidocr_onnxruntime", "*det_infer.onnx", pixels(32, 64), "p2o.Add.281", (700, 1),
        ("p2o.ConvTranspose.0", "ConvTranspose"),
    ),
    "reader": (
        "rapidocr_onnxruntime", "*rec_infer.onnx", pixels(48, 64), "p2o.Add.277", (2, 1),
        ("p2o.MatMul.24", "MatMul"),
    ),
    "direction": (
        "rapidocr_onnxruntime", "*cls_infer.onnx", pixels(48, 96), "linear_1.tmp_1", (0, 1),
        ("MatMul@0", "MatMul"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_real_file(name):
    package, pattern, x, score, classes, layer = FILES[name]
    path = file(package, pattern)
    run = session(path)
    (expected,) = run.run(None, {run.get_inputs()[0].name: x})
    np.testing.assert_allclose(jax.jit(convert(path))(x), expected, atol=1e-4)
    net = convert(path, [score]).then(lambda z: z[:, 1] if z.ndim == 3 else z.reshape(len(z), -1))
    explain, _ = check_closes(net, jnp.asarray(x), jax.jit(net)(x), 1e-3, classes)
    rows = {row.path: row.module for row in explain.plan(x).rows}
    assert layer in rows.items()


def test_a_real_file_with_an_lstm():
    """Silero VAD over 5 frames: the logit of speech in the last, of which all frames carry a share."""
    path, state = file("silero_vad", "*16k_sequence.onnx"), np.zeros((1, 1, 128), np.float32)
    given = {"input": RNG.normal(0, 0.1, (5, 576)).astype(np.float32), "h": state, "c": state}
    names = ["speech_probs", "hn", "cn"]
    expected = session(path).run(names, given)
    found = jax.jit(convert(path))(*given.values())
    for name, value in zip(names, expected, strict=True):
        np.testing.assert_allclose(found[name], value, atol=1e-4)
    logits = convert(path, ["/output/Conv_output_0"]).then(lambda z: z.reshape(1, -1))

    def net(frames: jax.Array) -> jax.Array:
        return logits(frames[0], state, state)

    frames = jnp.asarray(given["input"])[None]
    probability = expected[0]
    logit = np.log(probability / (1 - probability))[None]
    _, relevance = check_closes(net, frames, logit, 1e-3, jnp.array([4]))
    assert (np.abs(relevance).sum(-1) > 0).all()


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_cell_is_explained_as_that_of_flax(kind):
    """Outputs and relevance of a trained-like cell, whose gates Flax and ONNX order differently."""
    x = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    cell = {"LSTM": nn.LSTMCell(4), "GRU": nn.GRUCell(4)}[kind]
    module = nn.RNN(cell)
    params = module.init(jax.random.key(0), x)["params"]["cell"]
    params = jax.tree.map(lambda p: p + 0.1 * RNG.normal(size=p.shape).astype(np.float32), params)
    given, held = {"LSTM": ("iofg", "iofg"), "GRU": ("zrn", "zrn")}[kind]

    def of(letters: str, gates: str, name: str) -> np.ndarray:
        zero = {"kernel": np.zeros((0, 4)), "bias": np.zeros(4)}[name]
        arrays = [np.asarray(params[f"{letters}{g}"].get(name, zero)) for g in gates]
        return np.concatenate([a.T for a in arrays]).astype(np.float32)[None]

    node = onnx.helper.make_node(
        kind, ["a", "w", "r", "b"], ["", "h"], hidden_size=4, name="cell",
        **({"linear_before_reset": 1} if kind == "GRU" else {}),
    )  # fmt: skip
    model = network(
        onnx.helper.make_node("Transpose", ["x"], ["a"], perm=[1, 0, 2]), node,
        onnx.helper.make_node("Squeeze", ["h"], ["y"]),
        w=of("i", given, "kernel"), r=of("h", held, "kernel"),
        b=np.concatenate([of("i", given, "bias"), of("h", held, "bias")], 1),
    )  # fmt: skip
    net = convert(model)
    expected = module.apply({"params": {"cell": params}}, x)[:, -1]
    explain = check_explained(net, jnp.asarray(x), expected)
    assert any("cell" in path for path in explain.plan(x).paths)

    def flax(x: jax.Array) -> jax.Array:
        return module.apply({"params": {"cell": params}}, x)[:, -1]

    for composite in (composites.epsilon_plus(), composites.default()):
        ours, theirs = (lrp.explain(f, composite)(x, target=1).relevance for f in (net, flax))
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * scale)


RECURRENT = {
    "LSTM": ("LSTM", 4, {}),
    "LSTM, coupled gates": ("LSTM", 4, {"input_forget": 1}),
    "LSTM, clipped": ("LSTM", 4, {"clip": 0.3}),
    "LSTM, both ways": ("LSTM", 4, {"direction": "bidirectional"}),
    "GRU": ("GRU", 3, {}),
    "GRU, backward": ("GRU", 3, {"direction": "reverse", "linear_before_reset": 1}),
    "RNN, clipped": ("RNN", 1, {"clip": 0.3}),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_options_of_recurrent_operators(name):
    """Several steps of sequences of different lengths from given states, as onnxruntime computes them.

    The standard's own tests have one step from states of zero, where most options do nothing.
    """
    op, gates, options = RECURRENT[name]
    both, size, features = 1 + (options.get("direction") == "bidirectional"), 5, 4
    weights = {"w": (gates * size, features), "r": (gates * size, size), "b": (2 * gates * size,)}
    weights |= {"p": (3 * size,)} if op == "LSTM" else {}
    lengths, states = np.array([3, 1, 2], np.int32), ["h", "c"] if op == "LSTM" else ["h"]
    held = {k: RNG.normal(size=(both, *shape)).astype(np.float32) for k, shape in weights.items()}
    held |= {k: RNG.normal(size=(both, 3, size)).astype(np.float32) for k in states}
    node = onnx.helper.make_node(
        op, ["a", "w", "r", "b", "lengths", *states, *weights.keys() & {"p"}],
        ["all", *(f"{k}_n" for k in states)], hidden_size=size, **options,
    )  # fmt: skip
    transpose = onnx.helper.make_node("Transpose", ["x"], ["a"], perm=[1, 0, 2])
    last = onnx.helper.make_node("ReduceSum", ["all"], ["y"], keepdims=0)
    model = network(transpose, node, last, lengths=lengths, **held)
    names = ["all", *(f"{k}_n" for k in states)]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    x = RNG.normal(size=(3, 3, features)).astype(np.float32)
    expected = session(model).run(names, {"x": x})
    found = convert(model, names)(x)
    for output, value in zip(names, expected, strict=True):
        # float32, three steps
        np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=1e-5, err_msg=output)


IRIS, SPECIES = load_iris(return_X_y=True)
IRIS = IRIS.astype(np.float32)
SKLEARN = {
    "MLPClassifier": lambda: make_pipeline(
        StandardScaler(), MLPClassifier((8, 6), max_iter=50, random_state=0)
    ),
    "MLPRegressor": lambda: make_pipeline(
        MinMaxScaler(),
        PCA(3),
        MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", max_iter=50),
    ),
    "LogisticRegression": LogisticRegression,
    "LinearSVC": LinearSVC,
    "Ridge": Ridge,
}


@pytest.mark.parametrize("name", SKLEARN)
def test_scikit_learn(name):
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    model = SKLEARN[name]().fit(IRIS, SPECIES)
    exported = skl2onnx.to_onnx(model, IRIS[:1])
    x, net = jnp.asarray(IRIS[[0, 80]]), convert(exported)
    call = next(
        getattr(model, method)
        for method in ("predict_proba", "decision_function", "predict")
        if hasattr(model, method)
    )
    expected = call(IRIS[[0, 80]]).reshape(2, -1)
    runtime = session(exported).run([exported.graph.output[-1].name], {"X": np.asarray(x)})[0]
    if not isinstance(runtime, list):  # probabilities are dictionaries there
        np.testing.assert_allclose(net(x), runtime, atol=1e-4)
    classes = (2, 1) if expected.shape[1] > 1 else (0, 0)
    check_explained(net, x, expected, rtol=1e-3, classes=classes)


def network(*nodes: Any, **arrays: np.ndarray) -> Any:
    """A model from x (2, 3, 4) to y."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [value("x", onnx.TensorProto.FLOAT, [None, 3, 4])],
        [value("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets)


def test_names_types_and_variables():
    make = onnx.helper.make_node
    w = RNG.normal(size=(4, 5)).astype(np.float32)
    model = network(
        make("MatMul", ["x", "w"], ["z"], name="/body/MatMul"),
        make("Relu", ["z"], ["a"]),
        make("ReduceMean", ["a"], ["y"], axes=[1], keepdims=0),
        w=w,
    )
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    net = convert(model)
    np.testing.assert_allclose(net(x), np.maximum(x @ w, 0).mean(1), rtol=1e-5)
    composite = composites.by_module("MatMul", lrp.ZPlus()) + composites.default()
    plan = lrp.plan(net, composite, x)
    assert plan.paths == ("body/MatMul", "a/relu", "y/reduce_sum")
    assert isinstance(plan["body/MatMul"], lrp.ZPlus)
    np.testing.assert_allclose(net.apply({"w": 2 * w}, x), 2 * net(x), rtol=1e-5)
    assert convert(model.SerializeToString(), ["z"])(x).shape == (2, 3, 5)
    assert set(convert(model, ["z", "a"])(x)) == {"z", "a"}


def test_what_is_refused():
    make = onnx.helper.make_node
    unknown = network(make("DFT", ["x"], ["y"], name="/dft"))
    with pytest.raises(lrp.UnsupportedError, match=r"does not know: DFT \(node 'dft', opset 17\)"):
        convert(unknown)
    with pytest.raises(ValueError, match=r"no value 'logit'.*'logits'"):
        convert(
            network(make("Relu", ["x"], ["logits"]), make("Relu", ["logits"], ["y"])), ["logit"]
        )
    shaped = network(make("NonZero", ["x"], ["y"]))
    with pytest.raises(lrp.UnsupportedError, match="NonZero"):
        convert(shaped)
    depends = network(
        make("Cast", ["x"], ["n"], to=onnx.TensorProto.INT64), make("Reshape", ["x", "n"], ["y"])
    )
    with pytest.raises(
        lrp.UnsupportedError, match=r"input 1 of Reshape .* must be known beforehand"
    ):
        convert(depends)(np.ones((2, 3, 4), np.float32))
    with pytest.raises(TypeError, match=r"network takes 1 inputs \(x\), got 2"):
        convert(network(make("Relu", ["x"], ["y"])))(1, 2)
    with pytest.raises(TypeError, match=r"model must be the path of an ONNX file.*got int"):
        convert(3)
    with pytest.raises(ValueError, match=r"test_onnx\.py' is no ONNX file"):
        convert(__file__)
    assert convert(network(make("Relu", ["x"], ["y"])), "y")(np.ones((2, 3, 4))).shape == (2, 3, 4)
