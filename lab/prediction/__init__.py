"""Predicting staleness from delay models, without running anything."""
