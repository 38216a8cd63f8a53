"""Damaged and hostile model files: what reads them, and what must not happen."""
