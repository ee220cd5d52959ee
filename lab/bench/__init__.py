"""The lab's speed and exactness, as ratios to baselines measured in the same run."""
