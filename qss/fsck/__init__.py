"""Cross-layer invariants: what must hold between index, logs, files and locations; what is wrong, and its repair."""
