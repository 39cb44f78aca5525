"""Benchmarks of QSS, each as a ratio to the native file system of the same disk, measured in the same run."""
