"""Programs that race over the same topic, each a process of its own."""
