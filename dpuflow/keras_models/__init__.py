"""Trained Keras models: files, foreign files, predictions."""
