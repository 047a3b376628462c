"""What a profile is worth: rewards from ranking quality, with watch figures for reward hacking."""
