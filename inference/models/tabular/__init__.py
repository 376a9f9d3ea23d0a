"""The default model for tabular events: an ensemble of a linear model and two networks."""
