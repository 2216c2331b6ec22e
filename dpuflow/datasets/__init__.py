"""Datasets: from CSV files of labelled images to dataset.h5."""
