"""Proof in simulation: a plan's fleet with a router, on requests that the plan did not see."""
