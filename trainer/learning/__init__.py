"""Everything that needs torch: policies, losses, loops, and the systems that they make."""
