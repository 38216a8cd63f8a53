"""Training steps: one batch, in shards, captured and repeated, and by hand."""
