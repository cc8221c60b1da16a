"""The configuration to deploy, why it is that one, and what to know before deploying it."""
