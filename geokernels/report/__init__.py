"""What a run leaves behind: pictures, animations, ``run.json`` and a page that opens offline."""
