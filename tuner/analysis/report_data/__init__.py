"""What a report draws: the study as stored, its timeline, its windows, and which knobs matter."""
