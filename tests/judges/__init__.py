"""Clients that nobody here wrote, as judges: `make judges` installs and runs them."""
