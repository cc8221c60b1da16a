"""Nothing that was measured is lost: the evaluator's store faults, recovery, rebuild, backups."""
