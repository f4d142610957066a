"""The pure rules, by tables and by chance."""
