"""What a user is told: one sentence that says what is needed, what was found and what to do."""

from __future__ import annotations


class AwqdocError(Exception):
    """A mistake or a lack that its reader can mend; shown as one sentence, without a traceback."""
