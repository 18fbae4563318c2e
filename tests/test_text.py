"""Colored text and panels of named rows and columns."""

import html
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp.plot import panel, text

SPAN = re.compile(
    r'<span style="background:(#\w+);color:(#\w+)[^"]*" title="([^"]*)">([^<]*)</span>'
)


def spans(found):
    return [(html.unescape(m[4]), m[1], float(m[3])) for m in SPAN.finditer(found.html)]


def shown(found):
    """The text as a browser shows it."""
    return html.unescape(re.sub(r"<[^>]*>", "", found.html))


def test_each_token_has_the_color_of_its_relevance():
    found = text(["no", "great", "film"], [-2.0, 2.0, 0.0])
    assert spans(found) == [
        ("no", "#1354bc", -2.0),
        ("great", "#b31318", 2.0),
        ("film", "#ffffff", 0.0),
    ]
    assert shown(found) == "no great film"
    assert found._repr_html_() == found.html


def test_the_terminal_shows_the_same_colors():
    found = str(text(["no", "film"], [-2.0, 0.0]))
    assert found == "\x1b[97;48;2;19;84;188mno\x1b[0m \x1b[30;48;2;255;255;255mfilm\x1b[0m"


def test_word_pieces_are_put_together():
    assert shown(text(["play", "##ing", "ball"], np.ones(3))) == "playing ball"
    assert shown(text(["\u2581play", "ing", "\u2581ball", "."], np.ones(4))) == "playing ball."
    assert shown(text(["The", "\u0120play", "ing"], np.ones(3))) == "The playing"
    assert shown(text(["##", "b"], np.ones(2))) == "## b"


def test_sentences_share_one_scale_and_have_labels():
    found = text([["a", "b"], ["c"]], np.array([[1.0, 4.0], [2.0, 99.0]]), labels=["x:", "y:"])
    assert [(word, value) for word, _, value in spans(found)] == [("a", 1), ("b", 4), ("c", 2)]
    assert shown(found) == "x: a by: c"
    (c,) = spans(text(["c"], [2.0], limit=4.0))
    assert c == spans(found)[2]


def test_text_is_escaped(tmp_path):
    found = text(["<b>", "&", '"'], [1.0, 0.0, -1.0], labels=None)
    assert "<b>" not in found.html
    assert [word for word, _, _ in spans(found)] == ["<b>", "&", '"']
    found.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert found.html in page


def test_control_characters_are_shown_and_obeyed_by_no_terminal():
    raw = [
        "a\nb",
        "\t",
        "\x1b[2J",
        "\x9b31m",
        "\r\x00\x7f",
        "\u202eevil",
        "\u2028",
        "\ud800",
        "caf\u00e9",
    ]
    seen = [
        r"a\nb",
        r"\t",
        r"\x1b[2J",
        r"\x9b31m",
        r"\r\x00\x7f",
        r"\u202eevil",
        r"\u2028",
        r"\ud800",
        "caf\u00e9",
    ]
    found = text(raw, np.ones(len(raw)), labels=["\x1b[1A\n:"])
    assert [word for word, _, _ in spans(found)] == seen
    assert shown(found) == " ".join([r"\x1b[1A\n:", *seen])
    plain = re.sub(r"\x1b\[[\d;]*m", "", str(found))  # less the colors, which are ours
    assert plain == shown(found)
    assert plain.isprintable()
    str(found).encode()


def test_emoji_of_several_characters_stay_whole():
    family = "\U0001f468\u200d\U0001f469"
    assert [word for word, _, _ in spans(text([family], [1.0]))] == [family]


def test_jax_arrays_and_bfloat16():
    assert len(spans(text(["a"], jnp.ones(1, jnp.bfloat16)))) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: text(["a", "b"], [1.0]), ValueError, r"each of its 2 tokens, got shape \(1,\)"),
        (lambda: text(["a", "b"], np.ones(4)), ValueError, r"its 2 tokens, got shape \(4,\)"),
        (
            lambda: text([["a"], ["b"]], [[1.0, 2.0], [3.0]]),
            ValueError,
            r"of sentence 0 must have one number for each of its 1 tokens, got shape \(2,\)",
        ),
        (
            lambda: text([["a"], ["b"]], [[1.0]]),
            ValueError,
            "relevance must have 2 sentences, got 1",
        ),
        (lambda: text([["a"], [3]], [[1.0], [1.0]]), TypeError, "tokens must be strings, got 3"),
        (
            lambda: text(["a"], [1.0], labels=["x", "y"]),
            ValueError,
            "labels must have 1 entries, one per sentence",
        ),
        (lambda: text(["a"], [np.nan]), ValueError, "relevance must be finite"),
        (lambda: panel([1.0, 2.0]), ValueError, r"relevance must have shape \(rows, columns\)"),
        (
            lambda: panel([[1.0, 2.0]], column_labels=["a"]),
            ValueError,
            "column_labels must have 2 entries, got 1",
        ),
        (
            lambda: panel([[1.0, 2.0]], row_labels=["a", "b"]),
            ValueError,
            "row_labels must have 1 entries, got 2",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_traced_relevance_is_refused():
    with pytest.raises(TypeError, match="relevance must be a concrete array"):
        jax.jit(lambda r: text(["a"], r).html)(jnp.ones(1))


def test_a_panel_has_its_first_row_at_the_bottom():
    values = np.array([[1.0, -2.0, 0.0], [0.5, 0.25, 0.0]])
    ax = panel(values, row_labels=["in", "out"], column_labels=["a", "b", "c"], ylabel="layer")
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.origin == "lower"
    assert image.get_clim() == (-2.0, 2.0)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["in", "out"]
    assert ax.get_ylabel() == "layer"
    scaled = panel(values, normalize_rows=True).images[0].get_array()
    np.testing.assert_allclose(scaled, [[0.5, -1, 0], [1, 0.5, 0]])
    np.testing.assert_array_equal(
        panel(np.zeros((1, 2)), normalize_rows=True).images[0].get_array(), 0
    )
