"""Tests of the documentation: what it shows runs and is true, and it speaks of every public name."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxlrp
from jaxlrp import (
    baselines,
    causes,
    composites,
    concepts,
    dataset,
    generators,
    heads,
    higher_order,
    improve,
    inspection,
    metrics,
    onnx,
    patterns,
    plot,
    pretrained,
    prototypes,
    pytorch,
    rules,
    spray,
    study,
    tables,
    targets,
    training_data,
    tuning,
    uncertainty,
    virelay,
    visual_words,
)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LONG = (
    *(f"docs/tutorials/{name}.md" for name in ("concepts", "images", "text", "cheating")),
    "docs/howto/large_models.md",
    "docs/tutorials/more_than_classes.md",
)

_FENCE = re.compile(r"^( *)```python *(no-run)?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CLAIM = re.compile(r"#\s*=>\s*(.*)$")


def blocks(text: str) -> list[tuple[int, str]]:
    """(line, source) of the code blocks of a page that are to be run."""
    return [
        (text.count("\n", 0, found.start(3)) + 1, inspect.cleandoc(found[3]))
        for found in _FENCE.finditer(text)
        if not found[2]
    ]


def shown(value: object) -> str:
    """A value as the pages show it: to three decimals."""
    if isinstance(value, (jax.Array, np.ndarray, float)) and np.asarray(value).dtype.kind != "b":
        rounded = np.round(np.asarray(value, np.float64), 3) + 0.0  # no -0
        return np.array2string(rounded, precision=3, suppress_small=True)
    return str(value)


def run(source: str, namespace: dict, name: str, offset: int) -> None:
    """Runs a block; where an expression ends in `# => text`, its value must print like that."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        claim = _CLAIM.search(lines[node.end_lineno - 1])
        single = ast.Module([node], [])
        ast.increment_lineno(single, offset - 1)
        if not isinstance(node, ast.Expr) or claim is None:
            exec(compile(single, name, "exec", dont_inherit=True), namespace)
            continue
        expression = compile(ast.Expression(node.value), name, "eval", dont_inherit=True)
        value = eval(expression, namespace)
        assert shown(value).split() == claim[1].split(), f"{name}:{node.lineno}"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder of its own, for what a page writes."""
    monkeypatch.chdir(tmp_path)


def _page(path: Path) -> Any:
    name = str(path.relative_to(ROOT))
    return pytest.param(path, id=name, marks=[pytest.mark.slow] * (name in LONG))


@pytest.mark.entire
@pytest.mark.parametrize("page", [_page(path) for path in PAGES])
def test_code_runs(page, scratch, request):
    namespace: dict = {"__name__": "__main__"}
    for line, source in blocks(page.read_text(encoding="utf-8")):
        with contextlib.redirect_stdout(None):
            run(source, namespace, str(page), line)
    name = page.relative_to(DOCS).with_suffix("").as_posix() if DOCS in page.parents else ""
    if name in script("page_pictures").PAGES:
        check_pictures(request.getfixturevalue("make_pictures"), name, namespace)


def check_pictures(make_pictures, name, namespace):
    """What the code of a page has drawn."""
    figures = list(make_pictures.of_page(name, namespace).values())
    assert figures
    assert all(isinstance(f, plot.Text) or f.axes for f in figures)


@pytest.mark.exhaustive
def test_pictures_from_the_results_of_the_tutorial_on_concepts(scratch, make_pictures):
    """They take as long as the tutorial itself."""
    page, namespace = DOCS / "tutorials" / "concepts.md", {"__name__": "__main__"}
    for line, source in blocks(page.read_text(encoding="utf-8")):
        run(source, namespace, str(page), line)
    drawing = make_pictures.concept_pictures
    assert all(drawing.draw(picture, namespace).axes for picture in drawing.PICTURES)


def test_a_false_claim_is_noticed():
    with pytest.raises(AssertionError):
        run("1 + 1  # => 3", {}, "page", 1)
    run("1 + 1  # => 2", {}, "page", 1)


def test_blocks_are_found():
    text = "a\n```python\nx\n```\n```python no-run\ny\n```\n- b\n    ```python\n    z\n    ```\n"
    assert blocks(text) == [(3, "x"), (10, "z")]


def public(module: types.ModuleType) -> list[str]:
    """The names of `__all__`, else those that the module itself defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            getattr(value, "__module__", None) == module.__name__
            if inspect.isclass(value) or inspect.isfunction(value)
            else type(value).__module__ == module.__name__
        )
    ]


def classes_and_functions(module: types.ModuleType) -> list[str]:
    """Public names less those of modules and of the version."""
    return [name for name in public(module) if callable(getattr(module, name))]


@pytest.mark.parametrize(
    ("pages", "names"),
    [
        (("jaxlrp", "rules", "composites"), classes_and_functions(jaxlrp)),
        (("rules",), public(rules)),
        (("composites",), public(composites)),
        (("targets",), public(targets)),
        (("baselines",), public(baselines)),
        (("inspection",), public(inspection)),
        (("higher_order",), public(higher_order)),
        (("heads",), [*classes_and_functions(heads), *heads.kernels.__all__]),
        (("visual_words",), public(visual_words)),
        (("uncertainty",), public(uncertainty)),
        (("tuning",), public(tuning)),
        (
            ("training_data",),
            [
                *classes_and_functions(training_data),
                *training_data.metrics.__all__,
                *training_data.physics.__all__,
            ],
        ),
        (("causes",), [*classes_and_functions(causes), *causes.figures.__all__]),
        (("prototypes",), public(prototypes)),
        (("generators",), generators.__all__),
        (("concepts",), public(concepts)),
        (("metrics",), classes_and_functions(metrics)),
        (("metrics",), metrics.truth.__all__),
        (("dataset",), public(dataset)),
        (("plot",), public(plot)),
        (("pretrained",), public(pretrained)),
        (("pytorch",), public(pytorch)),
        (("onnx",), public(onnx)),
        (("virelay",), public(virelay)),
        (("spray",), public(spray)),
        (("study",), public(study)),
        (("tables",), public(tables)),
        (("patterns",), patterns.__all__),
        (("improve",), classes_and_functions(improve)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_public_name_has_an_entry(pages, names):
    text = "".join((DOCS / "api" / f"{page}.md").read_text(encoding="utf-8") for page in pages)
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra: docs)")
    text = script("hooks").on_page_markdown(text)
    entries = re.findall(r"^::: (jaxlrp[\w.]*)$", text, re.MULTILINE)
    found = {entry.rpartition(".")[2] for entry in entries}
    assert names
    assert [name for name in names if name not in found] == []
    assert len(entries) == len(set(entries))


def test_every_entry_exists():
    for page in (DOCS / "api").glob("*.md"):
        for entry in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, name = entry.rpartition(".")
            assert hasattr(importlib.import_module(module), name), entry


def names_of_rules() -> list[str]:
    return [
        name
        for name in rules.__all__
        if inspect.isclass(getattr(rules, name))
        and issubclass(getattr(rules, name), rules.Rule)
        and name != "Rule"
    ]


@pytest.mark.parametrize("name", names_of_rules())
def test_every_rule_has_a_page_with_a_reference(name):
    text = (DOCS / "rules" / f"{name.lower()}.md").read_text(encoding="utf-8")
    assert text.startswith(f"---\ntitle: {name}\n")
    assert f"\n# {name}\n" in text
    assert "## References" in text
    for heading in ("Formula", "Conservation", "When to use it", "Example"):
        assert f"## {heading}" in text, heading
    assert "../_pictures/" in text
    assert f"](../api/rules.md#jaxlrp.rules.{name})" in text


@functools.cache
def script(name: str) -> Any:
    """A Python file of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        patch.syspath_prepend(DOCS)  # of the scripts that it imports
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_pictures():
    pytest.importorskip("skimage", reason="scikit-image is not installed (extra: docs)")
    return script("make_pictures")


def test_every_picture_that_a_page_shows_is_drawn(make_pictures):
    net = types.SimpleNamespace(input_range=(-1.0, 1.0))
    shown = set()
    for page in DOCS.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        shown |= set(re.findall(r"_pictures/(\w+)\.png|<!-- colored text: (\w+) -->", text))
    shown = {name for pair in shown for name in pair if name}
    drawn = {picture for held in make_pictures.PAGES.values() for picture in held}
    of_concepts = make_pictures.concept_pictures.PICTURES
    assert shown == {*make_pictures.panels(net), *drawn, *of_concepts}


def test_a_picture(make_pictures):
    """One panel, on a network small enough to be a test."""

    class Model:
        def apply(self, w, x):
            return jax.nn.relu(x @ w).sum((1, 2))

    w = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    net = types.SimpleNamespace(model=Model(), variables=w, input_range=(-1.0, 1.0))
    x = np.random.default_rng(1).uniform(-1, 1, (1, 4, 5, 3)).astype(np.float32)
    (panel,) = make_pictures.panels(net)["WinnerTakesAll"]
    found = make_pictures.explained(net, panel, x)
    assert found.shape == (4, 5)
    assert np.abs(found).max() == 1.0
