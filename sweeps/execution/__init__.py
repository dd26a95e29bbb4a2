"""Running a plan with Ray Tune: capacity, placement, scheduling, progress, failures."""
