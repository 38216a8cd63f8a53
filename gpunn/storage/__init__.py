"""Files: safetensors, JSON of bounded size, and writing that leaves no half-written file."""
