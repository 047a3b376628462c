"""One module per `palate` command; deploy/cli.py lists them."""
