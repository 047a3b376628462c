"""A release: the model files that serve together, as one immutable folder.

store writes and verifies folders; files copies and hashes; compatibility says whether a release can
serve under these settings; canary proves that its adapter is in force; starter is the shipped one.
"""
