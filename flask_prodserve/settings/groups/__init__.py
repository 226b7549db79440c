"""The settings, in frozen groups. Each part of the server gets its group, never all settings."""
