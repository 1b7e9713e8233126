"""How well a model's predictions agree with what became of the patients: score cards, drift, two versions beside each
other. Pure functions over rows of predictions with outcomes; needs the extra `scores`."""
