from tests.datasets.conftest import cheap, cluster, frames  # noqa: F401
from tests.serve.conftest import _compiled  # noqa: F401
