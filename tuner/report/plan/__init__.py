"""An operating plan as files: a page, timers, and Kubernetes objects."""
