"""Which events are there, and which should be: the process that a log shows, a design of it, and how far the two agree.

`discovery` reads a log and gives what happens in it: types and their fields, what follows on what, variants, causes.
`process` is what is meant to happen, as a value and a file: it makes logs that follow it, and logs are held against it.
"""
