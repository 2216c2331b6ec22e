"""The command `dpuflow`: a configuration to begin with, and what a model file would be on a DPU."""
