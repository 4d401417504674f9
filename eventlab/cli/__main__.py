"""`python -m eventlab.cli`."""

from eventlab.cli import main

raise SystemExit(main())
