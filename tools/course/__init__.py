"""The course: writes its code blocks into the chapters, draws its diagrams, and does what the chapters say."""
