"""The defences against files that anyone may have written; see docs/untrusted_files.md."""
