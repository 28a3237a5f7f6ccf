"""Starting the worker: here, and later in jobs and on clouds."""
