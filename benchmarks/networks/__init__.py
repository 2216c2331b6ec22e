"""Real networks through the whole chain: `python -m benchmarks.networks` writes docs/networks.md."""
