"""The live event feed of the lab."""
