"""The gateway: calls for the provider, passed on under an account's credentials."""
