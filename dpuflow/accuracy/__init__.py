"""How good a stage is: accuracy records, intervals, agreement between stages, gates, predictions.csv."""
