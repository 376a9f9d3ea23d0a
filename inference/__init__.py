"""From events to predictions: declared features, the model, signed releases, the live model and the score step."""
