"""What is learned from: the event log or a folder as point-in-time sessions.

sources (log_source, folder_source) yield interactions and items; sessionize and point_in_time cut
them into sessions; splits and replay_sampling choose among them; corpus holds it all; cases,
target_answers and warm_start_examples make training tasks.
"""
