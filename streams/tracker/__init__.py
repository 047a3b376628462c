"""The tracker: keeps every user's state, asks for profiles, serves recommendations."""
