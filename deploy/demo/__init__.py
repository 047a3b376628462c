"""`palate demo`: real purchases through the whole of Palate, on this machine, in minutes.

plan.py     where it runs, and the settings that fit a fast replay
sample.py   the purchases that are shipped, split in time
traffic.py  sending: history, live events, bad messages
waiting.py  waiting for as long as the roles do something
backlog.py  how far the roles are behind what was sent
scenes.py   the acts of the demo, in order
report.py   figures from the event log; var/demo/report.json
"""
