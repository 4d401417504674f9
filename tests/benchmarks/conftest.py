"""The benchmark's programs run by name in a process of their own; importing them here would mix their models with the tests'."""

collect_ignore = ["gallery.py", "generate.py", "lift.py", "run.py"]
