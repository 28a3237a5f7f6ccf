"""The recipe resolved, with reasons, estimates and findings."""
