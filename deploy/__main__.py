"""`python -m deploy` is `palate`, for checkouts where the script is not installed."""

from __future__ import annotations

from deploy.cli import main

main()
