"""The benchmark's programs run by name in a process of their own; importing them here would mix their models with the tests'."""

from pathlib import Path

collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
