"""The study: what is searched, how it is proposed, and the loop that spends the budget."""
