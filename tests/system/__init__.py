"""Tests that need Debian packages: `make test-system` installs and runs them."""
