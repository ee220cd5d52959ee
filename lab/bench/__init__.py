"""The lab's speed and exactness as ratios against baselines, both measured in one run."""
