"""What happens next: the latent model, the simulator, retrieval of recorded states."""
