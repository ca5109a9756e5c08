"""`python -m awqdoc` is `awqdoc`."""

from awqdoc.cli import main

raise SystemExit(main())
