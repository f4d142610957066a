"""Our webhooks, as they are sent, before judges that others wrote."""
