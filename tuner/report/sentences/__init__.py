"""What every report says of a recommendation in the same words."""
