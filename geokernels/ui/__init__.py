"""The page of ``geokernels ui``: what commands take as forms, runs in a line, and what they made.

Nothing here knows a command: :mod:`geokernels.cli.forms` describes them, from their own declarations.
"""
