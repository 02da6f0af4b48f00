"""Several trainings of one recipe: the points of a sweep, seeds."""
