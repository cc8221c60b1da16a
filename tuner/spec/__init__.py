"""What a user asks for: a study, its search space, its objectives."""
