"""The first deviating layer: one network through all its stages, compared layer by layer."""
