"""Recommendation: the configuration to deploy, the reason, and its caveats."""
