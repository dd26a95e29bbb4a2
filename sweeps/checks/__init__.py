"""The checks of `ktrain doctor`: each looks at one thing, says what it has seen, and what to do where that is wrong."""
