"""One module per subject: what each command takes, and what it does with it."""
