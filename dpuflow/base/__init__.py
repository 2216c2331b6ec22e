"""What every room stands on: user errors, whole files, fix_point numerics, the door to TensorFlow."""
