"""Following a run: its event log, and trackers such as Trackio."""
