"""The code of the pages on other frameworks, which the documentation's own tests do not run.

Optional: the packages that `docs/howto/frameworks.md` and `docs/howto/onnx.md` name; `python -m pytest -m
thirdparty`. TensorFlow and tf2jax may need an environment of their own.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import pytest

import jaxlrp as lrp
from jaxlrp import composites

from test_docs import DOCS, blocks, run

os.environ.setdefault("KERAS_BACKEND", "jax")
pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.promotes("other frameworks"),
]

# Section of the page, and the package that it needs.
SECTIONS = {
    "Equinox": "equinox",
    "Haiku": "haiku",
    "Keras": "keras",
    "Penzai": "penzai.pz",
    "TensorFlow": "tf2jax",
}


@pytest.mark.parametrize("name", SECTIONS)
def test_frameworks(name):
    package = pytest.importorskip(SECTIONS[name], reason=f"{SECTIONS[name]} is not installed")
    if name == "Keras" and package.backend.backend() != "jax":
        pytest.skip("Keras was imported with another backend")
    page = (DOCS / "howto" / "frameworks.md").read_text(encoding="utf-8")
    _, _, section = page.partition(f"\n## {name}\n")
    section = section.partition("\n## ")[0].replace("python no-run", "python")
    namespace = {
        "jax": jax,
        "jnp": jnp,
        "lrp": lrp,
        "composites": composites,
        "x": jnp.ones((2, 4)),
    }
    found = blocks(section)
    assert found
    for line, source in found:
        run(source, namespace, name, line)


def test_onnx(tmp_path, monkeypatch):
    for package in ("onnx", "skl2onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "howto" / "onnx.md").read_text(encoding="utf-8")
    namespace: dict = {}
    for line, source in blocks(page.replace("python no-run", "python")):
        run(source, namespace, "onnx.md", line)
