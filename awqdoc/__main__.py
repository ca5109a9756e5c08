"""`python -m awqdoc` is `awqdoc`."""

from awqdoc.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
