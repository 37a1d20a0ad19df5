"""The engine: rows, rollouts, jobs."""
