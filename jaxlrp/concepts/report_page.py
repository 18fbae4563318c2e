"""The page of a report of concepts: HTML from what it says. All text is escaped, nothing is loaded."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import numpy as np

from jaxlrp._html import page, text

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_HEAD = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'

_STYLE = """
#cards { display: flex; flex-direction: column; }
.card { border: 1px solid #ccc; border-radius: .4rem; padding: .6rem 1rem; margin: .5rem 0; }
.card[hidden] { display: none; }
.card:target { outline: 3px solid #1354bc; }
.card h3 { margin: 0 0 .3rem; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; align-items: flex-start; }
figure { margin: 0; } figcaption { font-size: .75rem; color: #555; max-width: 12rem; margin-top: .2rem;
  overflow-wrap: anywhere; }
.row img { display: block; height: 8rem; max-width: 11rem; width: auto; object-fit: contain; }
.uses img { height: 4rem; }
.none { height: 4rem; width: 3rem; border: 1px dashed #bbb; box-sizing: border-box; }
.bar { display: inline-block; height: .6rem; background: #b31318; }
.less { background: #1354bc; }
.note { color: #555; } .row a { color: inherit; }
#search { font: inherit; width: 24rem; max-width: 100%; padding: .3rem .5rem; }
"""

_SCRIPT = """
(() => {
  const box = document.getElementById("search"), said = document.getElementById("found");
  const cards = [...document.querySelectorAll(".card")];
  const {words, similarity} = JSON.parse(document.getElementById("words").textContent);
  const known = words.map(w => w.toLowerCase());
  const search = () => {
    const query = box.value.trim().toLowerCase(), at = known.indexOf(query);
    let shown = 0;
    cards.forEach((card, i) => {
      const named = card.dataset.names.toLowerCase().includes(query);
      card.hidden = at < 0 && !named;
      card.style.order = at < 0 ? 0 : Math.round(-1000 * similarity[at][i]);
      card.querySelector(".similarity").textContent =
        at < 0 ? "" : ", similarity " + similarity[at][i].toFixed(3);
      shown += !card.hidden;
    });
    said.textContent = query === "" ? "" : at < 0
      ? shown + " of " + cards.length + " concepts"
      : "all concepts, the most similar to this word first";
  };
  box.addEventListener("input", search);
  const show = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (card && card.hidden) { box.value = ""; search(); card.scrollIntoView(); }
  };
  addEventListener("hashchange", show);
  search();
})();
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image of the page: an `img` element, and the text below it."""

    tag: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Card:
    """A concept.

    Attributes:
      concept: its index.
      share: its mean normalized relevance over all samples.
      uses: (name of a class, mean normalized relevance in it), the largest first.
      maps: samples with the heat map under the condition on the concept.
      crops: its reference samples, cropped.
      names: what the search looks at beside the number: names of classes.
    """

    concept: int
    share: float
    uses: Sequence[tuple[str, float]]
    maps: Sequence[Picture]
    crops: Sequence[Picture]
    names: Sequence[str]


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """A class: its name, number of samples, and (concept, mean normalized relevance) of the top ones."""

    name: str
    samples: int
    top: Sequence[tuple[int, float]]


@dataclasses.dataclass(frozen=True)
class OddRow:
    """An odd sample; see `jaxlrp.concepts.findings.Odd`."""

    sample: str
    name: str
    distance: float
    differ: Sequence[tuple[int, float, float]]
    picture: Picture | None


@dataclasses.dataclass(frozen=True)
class Contents:
    """All that a report shows.

    Attributes:
      title: of the page.
      facts: sentences about the data, before everything else.
      cards: concepts, in order.
      classes: the largest classes.
      more_classes: number of classes that are left out.
      odd: the farthest samples.
      alike: (concept, concept, cosine), the most alike first.
      alike_by: a sentence that says which concepts are compared, and by what.
      thumbnails: `img` elements, by concept.
      words: words to which similarity was computed.
      similarity: (words, cards).
      sections: further questions and the HTML of their answers, after the classes.
    """

    title: str
    facts: Sequence[str]
    cards: Sequence[Card]
    classes: Sequence[ClassRow]
    more_classes: int
    odd: Sequence[OddRow]
    alike: Sequence[tuple[int, int, float]]
    alike_by: str
    thumbnails: dict[int, str]
    words: Sequence[str] = ()
    similarity: np.ndarray | None = None
    sections: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


def render(contents: Contents) -> str:
    """The whole page."""
    parts = [*(text("p", fact) for fact in contents.facts)]
    parts += [text("h2", "What does the model see?"), *_search(contents)]
    parts += ['<div id="cards">', *map(_card, contents.cards), "</div>"]
    parts += [text("h2", "What does it use for each class?"), *_classes(contents)]
    for question, answer in contents.sections.items():
        parts += [text("h2", question), *answer]
    parts += [text("h2", "Which samples are odd?"), *_odd(contents)]
    parts += [text("h2", "Which concepts are alike?"), *_alike(contents)]
    parts += [_held(contents), f"<script>{_SCRIPT}</script>"]
    return page(contents.title, parts, style=_STYLE, head=_HEAD)


def contents_page(title: str, pages: Mapping[str, str]) -> str:
    """A page of links.

    Args:
      title: plain text.
      pages: from the text of each link to the name of a file in the same folder.
    """
    links = [
        f'<p><a href="{html.escape(quote(file))}">{html.escape(name)}</a></p>'
        for name, file in pages.items()
    ]
    return page(title, links, style=_STYLE, head=_HEAD)


def percent(share: float) -> str:
    """A share with its sign."""
    return f"{share:+.1%}"


def _search(contents: Contents) -> list[str]:
    hint = "a class" if not contents.words else "a class, or one of the listed words"
    options = "".join(f'<option value="{html.escape(word)}">' for word in contents.words)
    parts = [
        text(
            "p",
            "One card for each concept, those that count most first: its share of relevance (mean over all "
            "samples), the classes that use it, where it is in its first reference sample (red: for the "
            "class, blue: against it), and its reference samples, cropped to the concept and "
            "dimmed where it is not.",
        ),
        f'<p><label>Search: <input id="search" type="search" list="listed" autocomplete="off" '
        f'placeholder="{hint}"></label> <span id="found" class="note" aria-live="polite"></span></p>',
        f'<datalist id="listed">{options}</datalist>',
        "<noscript><p>The search needs JavaScript.</p></noscript>",
    ]
    if contents.words:
        parts.append(
            text(
                "p",
                f"A listed word ({len(contents.words)}) orders the cards by the similarity of their "
                "references to it, computed when the report was made; anything else is looked for in the "
                "names of classes.",
            )
        )
    return parts


def _card(card: Card) -> str:
    names = html.escape("\n".join([f"concept {card.concept}", *card.names]))
    uses = "; ".join(f"{name} {percent(share)}" for name, share in card.uses)
    head = f"Concept {card.concept}: {percent(card.share)} of relevance"
    return "\n".join(
        [
            f'<div class="card" id="concept-{card.concept}" data-names="{names}">',
            f'<h3>{html.escape(head)}<span class="similarity"></span></h3>{_bar(card.share)}',
            text("p", f"Used for {uses}" if uses else "Used for none of the classes shown"),
            '<div class="row">',
            *(picture(shown) for shown in [*card.maps, *card.crops]),
            "</div></div>",
        ]
    )


def _bar(share: float) -> str:
    kind = "bar" if share > 0 else "bar less"
    return f'<span class="{kind}" style="width:{min(abs(share), 1.0) * 30:.2f}rem"></span>'


def picture(shown: Picture) -> str:
    return f"<figure>{shown.tag}{text('figcaption', shown.caption)}</figure>"


def thumbnail(contents: Contents, concept: int, caption: str) -> str:
    """A small picture of a concept that leads to its card, if it has one."""
    tag = contents.thumbnails.get(concept) or '<div class="none"></div>'
    shown = f"<figure>{tag}{text('figcaption', caption)}</figure>"
    there = any(card.concept == concept for card in contents.cards)
    return f'<a href="#concept-{concept}">{shown}</a>' if there else shown


def _classes(contents: Contents) -> list[str]:
    parts = [
        text(
            "p",
            "The concepts with the largest mean normalized relevance: the relevance of a concept divided "
            "by the sum of magnitudes of all concepts of the layer, averaged over samples of the class.",
        )
    ]
    for row in contents.classes:
        count = f"{row.samples} sample{'' if row.samples == 1 else 's'}"
        parts += [text("h3", f"{row.name} ({count})"), '<div class="row uses">']
        parts += [thumbnail(contents, c, f"concept {c}: {percent(s)}") for c, s in row.top]
        parts.append("</div>" if row.top else "no concept has positive relevance</div>")
    if contents.more_classes:
        parts.append(
            text("p", f"{contents.more_classes} classes with fewer samples are not shown.")
        )
    return parts


def _odd(contents: Contents) -> list[str]:
    rule = (
        "The samples that lie farthest from their class: the Euclidean distance of their normalized "
        "relevance from the mean of the other samples of the class. Classes of fewer than three "
        "samples are left out."
    )
    if not contents.odd:
        return [text("p", rule), text("p", "No class has three samples.")]
    parts = [text("p", rule)]
    for row in contents.odd:
        parts += [
            text("h3", f"{row.sample}, {row.name}: distance {row.distance:.3f}"),
            '<div class="row uses">',
            picture(row.picture) if row.picture else "",
            *(
                thumbnail(contents, c, f"concept {c}: {percent(own)}, others {percent(others)}")
                for c, own, others in row.differ
            ),
            "</div>",
        ]
    return parts


def _alike(contents: Contents) -> list[str]:
    parts = [text("p", contents.alike_by)]
    if not contents.alike:
        return [*parts, text("p", "No two concepts are alike.")]
    for a, b, cosine in contents.alike:
        shown = "".join(thumbnail(contents, c, f"concept {c}") for c in (a, b))
        parts += [
            text("h3", f"Concepts {a} and {b}: cosine {cosine:.3f}"),
            f'<div class="row uses">{shown}</div>',
        ]
    return parts


def _held(contents: Contents) -> str:
    """The words and their similarity as JSON that cannot end its element."""
    similarity = np.zeros((0, 0)) if contents.similarity is None else contents.similarity
    held = json.dumps(
        {"words": list(contents.words), "similarity": np.round(similarity, 4).tolist()}
    )
    safe = held.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script id="words" type="application/json">{safe}</script>'
