"""Everything that Palate does with Kafka beside its roles.

clients makes producers and consumers that lose nothing; topics declares and creates the topics;
topic_ids and continuity notice a topic that was made anew; topic_follower reads a whole topic,
read_at one place; consumption says whether a consumer moves; connectivity why the broker is away.
"""
