"""Recommendations: from a user's query to a list with reasons.

queries is what is known of a user; catalogue, neighbours and cooccurrence are the data that lists
are made from; lance_index stores vectors; candidates picks items worth scoring; scoring ranks them;
reasons says why.
"""
