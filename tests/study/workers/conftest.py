"""Fixtures for studies whose workers are Ray's actors."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from helpers.ray_cluster import RayCluster, ray_cluster


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    """A local Ray cluster of one node with two GPUs."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'ray>=2.60'")
    with ray_cluster(gpus=2) as made:
        yield made
