"""Workers: the evaluators of a study, one for each card or group of cards."""
