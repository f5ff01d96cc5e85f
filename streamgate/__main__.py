"""``python -m streamgate`` is the command ``streamgate``."""

from streamgate.cli import main

main()
