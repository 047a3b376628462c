"""The role that owns every derived view: vectors in LanceDB and the co-occurrence snapshot."""
