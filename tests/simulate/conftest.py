from tests.serve.conftest import _no_hang, unix  # noqa: F401
