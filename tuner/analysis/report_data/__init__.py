"""Report data: the stored study, its timeline, its windows and the importance of knobs."""
