"""Files of named arrays (safetensors), and writes that never leave a half-written file."""
