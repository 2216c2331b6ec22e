"""What knows of Snakemake and of the configuration: scripts, run files, staleness, pictures of the rules."""
