"""What is kept: the job file."""
