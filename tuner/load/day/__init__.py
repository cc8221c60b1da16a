"""The load of a day: requests/s over time, from a curve, a monitoring system or a trace."""
