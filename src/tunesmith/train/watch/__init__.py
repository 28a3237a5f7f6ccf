"""What is looked at while a run trains: the best evaluation, samples, the machine, and callbacks of the user's own."""
