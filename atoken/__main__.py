"""``python -m atoken``: the command, for launchers that start modules (torchrun)."""

from atoken.cli import main

main()
