"""One trial on one running server: the load, the samples, and the steady window's metrics."""
