"""Hook of mkdocs: pages made of files beside docs/, and links to files outside the site.

Links are written for the repository, where every file has a page. In the site one that leads to a file without a page
becomes a link below ``repo_url``, or plain text where that is not set. One that leads nowhere is a warning.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {ROOT / f"{name.upper()}.md": f"{name}.md" for name in ("contributing", "changelog", "security")}
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each of the files beside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make the page's links to files outside docs/ links of the site."""
    source, docs = Path(page.file.abs_src_path), Path(config.docs_dir)
    here = Path(page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        found = Path(os.path.normpath(source.parent / target))
        if found.is_relative_to(docs) and source.is_relative_to(docs):
            return match[0]  # checked by mkdocs
        if not found.exists():
            log.warning("%s links to %s, which does not exist.", source.relative_to(ROOT), target)
        uri = PAGES.get(found) or (found.relative_to(docs).as_posix() if found.is_relative_to(docs) else None)
        if uri is not None:
            return f"[{text}]({os.path.relpath(uri, here)}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url}/blob/main/{found.relative_to(ROOT)}{anchor})"
        return text

    return LINK.sub(replaced, markdown)
