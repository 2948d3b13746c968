"""``python -m o3f.tags``: what each logged metric means, as a Markdown table."""

from __future__ import annotations

from o3f.runs.tags import table

if __name__ == "__main__":
    print(table())
