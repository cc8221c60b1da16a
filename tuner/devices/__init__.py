"""Energy, power and limits of GPUs: the protocols, and the leases that put limits back."""
