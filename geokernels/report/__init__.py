"""Pages that open offline: records, pictures as bytes, and words in; HTML out."""
