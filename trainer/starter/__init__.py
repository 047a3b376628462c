"""Makes the starter release that ships in models/starter."""
