"""The guard: watches a run while it trains, by the rules of letter R, and warns, stops it or goes back."""
