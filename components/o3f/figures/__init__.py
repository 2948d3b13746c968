"""The paper's figures: which runs they need, how those are started, and what is read off them."""

from __future__ import annotations
