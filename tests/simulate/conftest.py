from tests.serve.conftest import _compiled, _no_hang, unix  # noqa: F401
