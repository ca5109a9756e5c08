"""End a build that cannot succeed with one sentence.

Sphinx answers every exception, also one that only tells the user what to type, with a traceback and a request
to report a bug, and it catches `SystemExit` in conf.py. So this ends the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sphinx.errors import ConfigError

from awqdoc.errors import AwqdocError


@contextmanager
def one_sentence() -> Iterator[None]:
    """Print the message of an expected error and exit with code 2."""
    try:
        yield
    except (AwqdocError, ConfigError) as error:
        sys.stdout.flush()
        print(f"The site cannot be built: {error}", file=sys.stderr, flush=True)
        os._exit(2)
