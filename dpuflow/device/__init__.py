"""DPU targets as data: sizes, boards, fingerprints, limits."""
