"""The course: exercises on the code of minigen, which the project's own tests check."""
