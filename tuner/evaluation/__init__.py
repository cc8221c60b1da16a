"""From a configuration to a Measurement: launched, attached and virtual evaluators."""
