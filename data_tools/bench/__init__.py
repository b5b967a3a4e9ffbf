"""Programs that measure the cleaning engine: a figure beside named baselines of the same run."""
