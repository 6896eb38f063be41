"""The course in docs/course: its code blocks, its pictures, and a program that follows it."""
