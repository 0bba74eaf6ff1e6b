from tests.datasets.conftest import cheap, cluster, frames  # noqa: F401
