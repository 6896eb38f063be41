"""The course's code blocks: writes them into the chapters and does what the chapters say."""
