"""Will O3F help? Candidates played from states of a run, and what the critics say of them."""

from __future__ import annotations
