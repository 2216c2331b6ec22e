"""From a layer list to a trained legacy-Keras H5 file."""
