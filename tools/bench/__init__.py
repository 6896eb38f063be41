"""The benchmark: this project beside what one would use in its place."""
