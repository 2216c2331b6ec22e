"""A user's own picture files through the emulated board."""
