"""The head of CAT-DOG: a logistic regression that also uses ImageNet's odds of dogs and cats."""
