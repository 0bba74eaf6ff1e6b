"""``deltaserver simulate``: one run, or a sweep of them."""
