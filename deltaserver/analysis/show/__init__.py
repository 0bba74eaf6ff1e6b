"""Results as tables, figures and a report."""
