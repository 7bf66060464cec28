"""What pages and notebooks are made of: the templates, the terms that they explain, and the summary of a report."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import jinja2
from markupsafe import Markup, escape

from vqvae_gluon.printed import json_text, plain

# The terms of a report, as docs/glossary.md explains them, too. A term is linked where it stands in a page.
TERMS = {
    "arbiter": "The same graph computed in float64. It shows which side has the larger error.",
    "bound": "The largest error that float32 rounding explains, measured with the arbiter for every tensor.",
    "tap": "A request for the values of a node inside the graph. Taps can change how a runtime computes.",
    "jump": "A value that a tiny change of its input can move far, such as a code, an argmax or a rounded number.",
    "flip": "A jump on which the two sides differ. A legal flip is explained by an error within the bound; a real flip"
    " is not.",
    "legal": "A flip is legal if a near tie explains it: an error within the bound is enough to cause it.",
    "real": "A flip is real if no error within the bound explains it.",
    "margin": "How far apart the two choices are, such as the difference of two distances. A small margin is a near"
    " tie.",
    "local error": "The error of one node alone, computed from the reference's inputs.",
    "cumulative error": "The error of a node in an ordinary run, where the errors of all nodes before it add up.",
    "first divergent node": "The first node that is wrong although all nodes before it are right.",
    "black box": "A candidate of which only its values are used, not its files.",
}
_WRITTEN = {"taps": "tap", "jumps": "jump", "jumped": "jump", "flips": "flip", "bounds": "bound"}
# As a word of a sentence, not as a part of a name or a path.
_TERM = re.compile(rf"(?<![\w/.-])({'|'.join(sorted([*TERMS, *_WRITTEN], key=len, reverse=True))})(?![\w/-]|\.\w)")


def templates() -> jinja2.Environment:
    """What pages are made of."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # Names come from files, and files from anywhere.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(explained=explained, anchor=anchor)
    return environment


def anchor(term: str) -> str:
    """The id of a term in the glossary of a page."""
    return f"term-{term.replace(' ', '-')}"


def explained(text: object) -> Markup:
    """Text, escaped, with a link from the first use of each term to the glossary; its meaning is the tooltip."""
    seen: set[str] = set()

    def link(found: re.Match) -> str:
        term = _WRITTEN.get(found[0], found[0])
        if term in seen:
            return found[0]
        seen.add(term)
        return f'<a class="term" href="#{anchor(term)}" title="{escape(TERMS[term])}">{found[0]}</a>'

    return Markup(_TERM.sub(link, str(escape(plain(text)))))


def json_block(document: Any) -> Markup:
    """A document as JSON, escaped, in lines."""
    return escape(json_text(document, 1))


def _shown(value: object) -> object:
    """What stands in a page for a value: a name may hold what no page can."""
    return plain(value) if isinstance(value, (str, Path)) and not isinstance(value, Markup) else value


def summary_html(
    verdict: str,
    summary: str,
    cause: Optional[Mapping[str, str]],
    remedies: Sequence[str],
    first: Optional[tuple[str, str]],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str = "First divergence",
) -> str:
    """The summary of a report for a notebook: HTML that needs no other file and no script.

    Args:
        cause: its ``name`` and ``evidence``.
        first: the tensor to look at, by its name, and how far off it is; ``label`` says why this one.
        head: names of the columns.
        rows: their cells; the row of that tensor begins with its name.
    """
    return (
        templates()
        .get_template("summary.html")
        .render(
            verdict=verdict,
            summary=summary,
            cause=cause,
            remedies=remedies,
            first=first,
            label=label,
            head=head,
            rows=rows,
        )
    )
