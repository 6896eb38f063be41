"""What a training run fits and chooses on the features: head, domain score, second look."""
