"""What an event-sourced model is: events, commands, aggregates and projections as plain typed classes.

Pure: nothing here reads a clock, a disk or chance. `types` says what a field may hold and its one stored form, `events`
and `models` hold the decorators, `schema` what a store remembers of a type, `filters` picks events, `meta` is the
envelope, `names` the spelling, `ids` the ids, `source` the code of a model as data.
"""
