"""How heavy a stretch of traffic is, known without a measurement."""
