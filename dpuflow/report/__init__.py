"""The accuracy report and the sweep page, made from the JSON files of the stages."""
