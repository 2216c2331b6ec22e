"""TensorFlow graphs: checkpoint, freezing, reading, evaluation."""
