"""A fleet of emulated replicas behind a router, whose size changes over a day."""
