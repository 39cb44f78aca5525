"""QSS Quantum Storage: a mounted file system whose data survives the loss of any m of its k+m locations."""

__version__ = "0.1.0"
