"""Many settings of the quantizer on one network, ranked."""
