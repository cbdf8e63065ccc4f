"""From one picture to another by transport."""
