"""A GPU that ships."""

import pytest

from tuner.catalog.gpu import Gpu, load_gpu


@pytest.fixture
def h100() -> Gpu:
    return load_gpu("H100-SXM")
