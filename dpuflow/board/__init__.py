"""Boards: the bundle that goes there, the remote run, and the comparison with the emulator."""
