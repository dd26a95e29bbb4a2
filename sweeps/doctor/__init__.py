"""The checks of `ktrain doctor`: each reports what is wrong on a machine or cluster, and what to do about it."""
