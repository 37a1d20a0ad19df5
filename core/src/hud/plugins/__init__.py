"""The microkernel: what plugins declare, how they are found, isolated and called."""
