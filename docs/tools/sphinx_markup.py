"""Extension of griffe: what docstrings write for Sphinx (roles, maths), as Markdown that needs no network to read.

``:class:`~o3f.modules.Argmax``` becomes a link where the site has that object, else its name; a name of ours that
is not there is a warning. Maths is drawn by matplotlib.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import griffe
from matplotlib import font_manager, mathtext, rc_context

ROLE = re.compile(r":(?:py:)?(?:class|func|meth|attr|data|mod|exc):`(~?)([\w.]+)`")
INLINE = re.compile(r":math:`([^`]+)`")
DISPLAY = re.compile(r"^( *)\.\. math::(.*)\n((?:\1 +\S.*(?:\n|\Z))*)", re.MULTILINE)
# LaTeX that matplotlib does not know, in words that it does.
OTHER = [
    (r"\\[lr]Vert\b", r"\\Vert"),
    (r"\\([lg])e\b", r"\\\1eq"),
    (r"\\[bB]ig\b", ""),
    (r"\\sqrt (\w)", r"\\sqrt{\1}"),
]
ELSEWHERE = {"torch", "torchrl", "tensordict", "gymnasium", "minari", *sys.stdlib_module_names}
log = logging.getLogger("mkdocs.plugins.sphinx_markup")


class SphinxMarkup(griffe.Extension):
    """Rewrites all docstrings of the package once it is read."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite them."""
        for each in documented(pkg):
            assert each.docstring is not None
            each.docstring.value = converted(each.docstring.value, each)


def documented(parent: Any) -> Iterator[griffe.Object]:
    """All objects of the package that have a docstring, each once."""
    if parent.docstring:
        yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from documented(member)


def converted(text: str, owner: Any) -> str:
    """Markdown of a docstring."""
    text = DISPLAY.sub(lambda m: f'{m[1]}<p class="math">{picture(m[2] + " " + m[3], 11)}</p>\n\n', text)
    text = INLINE.sub(lambda m: picture(m[1], 10), text)
    text = ROLE.sub(lambda m: link(m[2], short=bool(m[1]), owner=owner), text)
    return re.sub(r"(?<=\S)::$", ":", re.sub(r"^::\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)


def link(name: str, *, short: bool, owner: Any) -> str:
    """A reference to an object, by its full name or one that is known where ``owner`` stands."""
    shown = name.split(".")[-1] if short else name
    try:
        path = name if name.startswith("o3f.") else resolved(name, owner)
        if path.startswith("o3f."):
            path = owner.package.modules_collection[path].canonical_path
    except (KeyError, griffe.NameResolutionError, griffe.AliasResolutionError):
        if name.split(".")[0] not in ELSEWHERE:
            log.warning("The docstring of %s names %s, which is not there.", owner.path, name)
        return f"`{shown}`"
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'


def resolved(name: str, owner: Any) -> str:
    """The full name of a member of the owner, of its class, or of its module."""
    first, *rest = name.split(".")
    for scope in (owner, owner.parent):
        if scope is not None and scope.is_class and first in scope.all_members:
            return f"{scope.path}.{name}"
    return ".".join([str(owner.resolve(first)), *rest])


def picture(latex: str, size: float) -> str:
    """An image of a formula, as high as the text around it asks for."""
    source = " ".join(latex.split())
    formula = source
    for pattern, word in OTHER:
        formula = re.sub(pattern, word, formula)
    font, file = font_manager.FontProperties(size=size), io.BytesIO()
    with rc_context({"svg.hashsalt": "o3f"}):  # the same bytes at every build
        depth = mathtext.math_to_image(f"${formula}$", file, prop=font, dpi=72, format="svg")
    height = float(re.search(rb'height="([\d.]+)pt"', file.getvalue())[1])  # type: ignore[index]
    style = f"height:{height / 8:.2f}em;vertical-align:-{float(depth) / 8:.2f}em"
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="math" alt="{html.escape(source)}" style="{style}" src="data:image/svg+xml;base64,{data}">'
