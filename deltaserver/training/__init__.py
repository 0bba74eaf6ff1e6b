"""From raw structures to a served model: datasets, labels, training, evaluation."""
