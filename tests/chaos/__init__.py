"""Jobs whose workers are killed, suspended and told to stop at random moments."""
