"""Releases as topic `releases` tells of them.

announcements writes a step of a release (candidate, ready, serving); serving reads them all, and
says which release is in force and which was before it.
"""
