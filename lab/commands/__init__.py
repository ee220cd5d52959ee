"""The command line, a file per group; ``lab/cli.py`` puts them together."""
