"""TOML to frozen options; the only reader of configuration files and environment."""
