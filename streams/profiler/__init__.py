"""The role that turns profile requests into profiles. Stateless: all it knows is in topics."""
