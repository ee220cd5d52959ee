"""Results of experiments as tables, charts and one HTML page."""
