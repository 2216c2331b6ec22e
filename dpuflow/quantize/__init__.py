"""The `reference` quantizer: frozen GraphDef -> INT8 power-of-two network."""
