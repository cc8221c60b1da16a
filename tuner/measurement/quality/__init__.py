"""Quality: questions with known answers, asked of a server, and how accuracies are compared."""
