"""Joining result files, and keeping what was joined."""
