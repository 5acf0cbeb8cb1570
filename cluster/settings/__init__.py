"""How a configuration comes about: a TOML file, environment variables over it, flags over both."""
