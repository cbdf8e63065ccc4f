"""Where a morph begins: guesses of colours and outlines, found by search."""
