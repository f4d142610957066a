"""The routes, a file for each noun. A handler reads the request, asks storage, and answers."""
