"""Files: named arrays (safetensors), and writing that leaves no half-written file."""
