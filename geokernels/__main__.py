"""``python -m geokernels`` is the command ``geokernels``."""

from .cli import main

main()
