"""GPUs and models as data, with their sources; the YAML files that ship and that users write."""
