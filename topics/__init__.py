"""What travels: events, codec, errors, the registry of topics, client settings, the embedded broker."""
