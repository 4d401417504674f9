"""What the type checkers look at is not imported by pytest: it defines classes of its own names, and one file is all mistakes."""

collect_ignore = ["page_one.py", "mistakes.py"]
