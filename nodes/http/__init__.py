"""What endpoints share: requests checked, guarded and answered."""
