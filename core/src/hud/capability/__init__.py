"""What an environment exposes, and what an agent makes of it."""
