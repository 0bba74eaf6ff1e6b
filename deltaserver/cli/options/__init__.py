"""Options that subcommands share, and the settings that they make."""
