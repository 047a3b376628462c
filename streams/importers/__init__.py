"""Files of other systems → Palate's own messages.

`readers` turns a file into rows, `layouts` knows which columns a format has, one module per
format turns a row into an Item or an Interaction, `survey` joins them without a broker and
`transmission` sends the result to Kafka.
"""
