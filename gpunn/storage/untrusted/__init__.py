"""The reading of untrusted files, within limits; see docs/untrusted_files.md."""
