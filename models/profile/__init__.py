"""A profile: from a request's windows to sentences that the events bear out.

evidence and prompts say what the model is asked; grounding (with negation and words) checks each
statement of its answer; extractive writes what the model did not; budget cuts to length; assembly
puts a profile together.
"""
