"""The report of a spectral relevance analysis: one file, with everything in it and nothing unescaped."""

import base64
import html.parser
import io
import sys

import jax
import numpy as np
import pytest

import jaxlrp
from jaxlrp import spray

pytest.importorskip("sklearn", reason="scikit-learn (extra: spray)")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

KEY = jax.random.key(0)


class Page(html.parser.HTMLParser):
    """Tags, text and pictures of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.images = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def found():
    """Two classes of maps; half of class 1 looks elsewhere."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 24)
    maps = 0.1 * rng.normal(size=(48, 6, 6))
    maps[:, 2:4, 2:4] += 1
    maps[36:, 2:4, 2:4] -= 1
    maps[36:, :2, :2] += 1
    settings = spray.Settings(views={"pca": spray.PCA()})
    analyses = spray.analyze(maps, labels, key=KEY, settings=settings)
    return maps, analyses, spray.rank(analyses, maps, labels=labels)


def written(tmp_path, *args, **kwargs):
    path = spray.report(tmp_path / "spray.html", *args, **kwargs)
    return path.read_text(encoding="utf-8")


def pixels(image):
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_everything_is_in_one_file(found, tmp_path):
    maps, analyses, ranking = found
    inputs = np.zeros((48, 6, 6, 3), np.uint8)
    source = written(
        tmp_path, analyses, ranking, maps, inputs=inputs, names=["cat", "dog"], max_examples=2
    )
    page = Page(source)
    assert "http" not in source.replace("http-equiv", "")
    assert not {"script", "link", "iframe"} & set(page.tags)
    # A figure of each class, and one of each of its clusters.
    assert len(page.images) == 2 + len(ranking.candidates)
    assert all(pixels(image).std() > 5 for image in page.images)
    text = " ".join(page.text)
    for words in ("cat (0)", "dog (1)", "Cluster 0: 12 samples (50.0%)", "purity 1.000"):
        assert words in text
    first = ranking.candidates[0]
    assert f"Most typical rows of the data set: {first.rows[0]}, {first.rows[1]}" in text


def test_the_class_that_is_ranked_first_comes_first(found, tmp_path):
    maps, analyses, ranking = found
    source = written(tmp_path, analyses, ranking, maps, max_classes=1, max_examples=1)
    assert ranking.classes[0] == 1
    assert "<h2>class 1</h2>" in source
    assert "<h2>class 0</h2>" not in source
    assert "1 more classes are not shown" in source


def test_names_are_escaped(found, tmp_path):
    _, analyses, ranking = found
    evil = '<script>alert("x")</script>&"'
    source = written(tmp_path, analyses, ranking, names={0: "a", 1: evil}, title=evil)
    assert "<script" not in source
    page = Page(source)
    assert "script" not in page.tags
    assert f"{evil} (1)" in page.text
    assert page.text.count(evil) == 2  # the title, twice
    assert all(set(image) == {"alt", "src"} for image in page.images)


def test_the_mean_is_drawn_in_red_where_the_relevance_is(found, tmp_path):
    _, analyses, ranking = found
    source = written(tmp_path, analyses, ranking)
    # The overview of class 1 comes first, then its clusters, here with their means alone.
    which = [36 in c.rows for c in ranking.of_class(1)].index(True)
    image = pixels(Page(source).images[1 + which]).astype(int)
    rows, columns = np.nonzero(image @ [1, -1, 0] > 80)
    assert rows.mean() < image.shape[0] / 2
    assert columns.mean() < image.shape[1] / 2
    other = pixels(Page(source).images[2 - which]).astype(int)
    assert np.nonzero(other @ [1, -1, 0] > 80)[0].mean() > rows.mean() + 10


def test_signals_and_a_drawing_of_ones_own(tmp_path):
    signals = np.random.default_rng(0).normal(size=(24, 30))
    settings = spray.Settings(views={})
    analyses = spray.analyze(signals, np.zeros(24, int), key=KEY, settings=settings)
    ranking = spray.rank(analyses, signals)
    page = Page(written(tmp_path, analyses, ranking, signals, inputs=signals, max_examples=2))
    assert len(page.images) == 1 + len(ranking.candidates)
    drawn = []

    def draw(ax, relevance, below):
        drawn.append((relevance.shape, below is None))

    written(tmp_path, analyses, ranking, signals, inputs=signals, max_examples=1, draw=draw)
    assert drawn == [((30,), True), ((30,), False)] * len(ranking.candidates)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["cat"]}, "names must cover every class, up to 1, got 1 names"),
        ({"view": "tsne"}, r"view must be one of \['pca', 'spectral'\], got 'tsne'"),
        ({"analyses": []}, "analyses must contain every class of ranking, but class 1 is missing"),
        ({"max_examples": 0}, "max_examples must be an integer >= 1, got 0"),
        ({"max_classes": 0}, "max_classes must be an integer >= 1, got 0"),
        ({"relevance": np.ones((48, 6, 6, 7))}, r"samples of shape \(6, 6, 7\); sum over channels"),
    ],
)
def test_what_does_not_fit_is_refused(found, tmp_path, changes, message):
    _, analyses, ranking = found
    arguments = {"analyses": analyses, "ranking": ranking} | changes
    with pytest.raises(ValueError, match=message):
        spray.report(tmp_path / "spray.html", **arguments)
    assert not (tmp_path / "spray.html").exists()


def test_without_matplotlib_the_extra_is_named(found, tmp_path, monkeypatch):
    _, analyses, ranking = found
    for name in [n for n in sys.modules if n.startswith(("jaxlrp.plot", "jaxlrp.spray.figures"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(jaxlrp, "plot", raising=False)
    monkeypatch.delattr(spray, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "jaxlrp\[plot\]"'):
        spray.report(tmp_path / "spray.html", analyses, ranking)
