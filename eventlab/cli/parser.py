"""The command line: what each command takes, and what its help says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from rich.console import Console

import eventlab
from eventlab.cli.designing import board_command, conform_command, discover_command, docs_command
from eventlab.cli.keeping import (
    backup_command,
    compact_command,
    gc_command,
    restore_command,
    seal_command,
    upgrade_command,
    verify_command,
)
from eventlab.cli.proving import (
    check_command,
    goldens_command,
    lint_command,
    replay_diff_command,
    schema_command,
    snapshots_command,
)
from eventlab.cli.shared import (
    DEFAULT_STORE,
    count_of,
    position_of,
    wait_of,
)
from eventlab.cli.using import (
    accept_command,
    demo_command,
    events_command,
    explain_command,
    info_command,
    lab_command,
    parked_command,
    rebuild_command,
    run_command,
    show_command,
    sql_command,
    status_command,
    table_command,
)
from eventlab.projections.runner import LEASE_SECONDS
from eventlab.store.gc import GRACE_SECONDS


def command_line() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="eventlab", description="A workbench for event sourcing: a log, its folds, and moments in time."
    )
    parser.add_argument("--version", action="version", version=f"eventlab {eventlab.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace, Console], int], about: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        if name != "lab":
            command.add_argument(
                "--store",
                metavar="DIR",
                default=os.environ.get("EVENTLAB_STORE", DEFAULT_STORE),
                # A store that a restore makes has its name from the one who asks.
                required=name == "restore",
                help="the new store's folder" if name == "restore" else "the store's folder (default: %(default)s)",
            )
        return command

    def with_models(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--models",
            metavar="MODULE",
            action="append",
            help="where models are: package.module or package.module:Name; repeatable",
        )
        command.add_argument("--tenant", help="whose events; without it a store with tenants is read whole")

    def with_moment(command: argparse.ArgumentParser) -> None:
        command.add_argument("--at", metavar="TIME", help="as it was known at a time, such as 2013-02-08T18:00Z")
        command.add_argument("--position", type=int, metavar="N", help="as it was at a position")

    year = "A year of real flights becomes a log, tables, moments and a proof."
    whole = add("demo", demo_command, year, "eventlab demo --store data/flights")
    whole.add_argument("--quick", action="store_true", help="leave the proof of replay out, which takes most of the time")
    glance = "A store at a glance: events, types, levels, sizes, read models."
    add("info", info_command, glance, "eventlab info --store data/flights")

    one = add(
        "show",
        show_command,
        "One event, stream, segment or catalog table, where it lies and whether it is as it was written.",
        "eventlab show 1234\n  eventlab show --stream flight-2013-02-08-UA-1550-EWR\n  eventlab show --segment 17\n  "
        "eventlab show --catalog\n  eventlab show --catalog segment --where state=retired",
    )
    one.add_argument("position", nargs="?", type=position_of, metavar="POSITION", help="the event at this position")
    one.add_argument("--stream", metavar="NAME", help="a stream: its head, where its events lie, its snapshots")
    one.add_argument("--tenant", help="whose stream; without it every tenant's of that name")
    one.add_argument("--segment", metavar="NAME-OR-NUMBER", help="a segment: its place, digest, columns, row groups")
    one.add_argument(
        "--catalog", nargs="?", const="", metavar="TABLE", help="the catalog at a glance; with a table's name, its rows"
    )
    one.add_argument("--where", action="append", metavar="COLUMN=VALUE", help="only these rows of the table; repeatable")
    one.add_argument("--limit", type=count_of, default=20, metavar="N", help="at most so many rows of the table (default: 20)")
    one.set_defaults(refuse=one.error)

    example = "eventlab events --type FlightCancelled --at 2013-02-08T18:00Z --limit 5"
    one = add("events", events_command, "Look at events.", example)
    with_models(one)
    with_moment(one)
    one.add_argument("--type", action="append", help="events of this type; repeatable")
    one.add_argument("--stream", action="append", help="events of this stream; repeatable")
    one.add_argument("--category", action="append", help="events of every stream of this category; repeatable")
    one.add_argument("--tag", action="append", help="events with this tag, such as tail:N725MQ; repeatable, all must be there")
    one.add_argument("--after", type=int, default=0, metavar="N", help="only after this position")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")

    one = add(
        "rebuild",
        rebuild_command,
        "Fold the log into read models and swap them in.",
        "eventlab rebuild --models eventlab.domains.flights",
    )
    with_models(one)
    one.add_argument("--catch-up", action="store_true", help="fold only the events since the checkpoint")
    one.add_argument("--accept", action="store_true", help="let the names stand for this code, where they stood for another")

    one = add(
        "accept",
        accept_command,
        "Let the name of a read model stand for the code that is here, or for one that is stored.",
        "eventlab accept Flight --models eventlab.domains.flights\n  eventlab accept flight --fingerprint 3fa9",
    )
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    one.add_argument("--fingerprint", metavar="HEX", help="the one that is stored whose fingerprint begins so; see status")

    one = add(
        "run",
        run_command,
        "Keep read models at the head of the log and tell consumers, until Ctrl-C; several processes share the work.",
        "eventlab run --models shop.models\n  eventlab run --models shop.models --once",
    )
    with_models(one)
    one.add_argument("--once", action="store_true", help="do what is to be done now, and end")
    one.add_argument("--lease", type=float, default=LEASE_SECONDS, metavar="SECONDS", help="how long a lease lasts")

    stands = "Read models and consumers: where each stands, how far behind, what failed."
    one = add("status", status_command, stands, "eventlab status")
    one.add_argument("--tenant", help="whose; without it a store with tenants is read whole")

    one = add("parked", parked_command, "Keys and streams that stopped at an event that was not taken.", "eventlab parked")
    one.add_argument("name", nargs="?", metavar="NAME", help="of this read model or consumer")
    one.add_argument("--tenant", help="whose; without it a store with tenants is read whole")

    one = add("table", table_command, "A model's table.", "eventlab table Aircraft --models eventlab.domains.flights --limit 5")
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    with_moment(one)
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows (default: 20)")

    one = add(
        "explain",
        explain_command,
        "How a model is folded: what lifts to a query, what does not, and which line is the reason.",
        "eventlab explain Flight --models eventlab.domains.flights\n  "
        "eventlab explain Flight --models eventlab.domains.flights --sql",
    )
    one.add_argument("model", metavar="MODEL", help="its name, or package.module:Name")
    with_models(one)
    one.add_argument("--sql", action="store_true", help="the query over this store, and nothing else")
    one.add_argument("--loop", action="store_true", help="the generated loop, and nothing else")

    one = add(
        "sql", sql_command, "A query over events, types and state.",
        'eventlab sql "select _type, count(*) from events.log group by all"',
    )
    one.add_argument("query", help="one SELECT, or - for standard input")
    with_models(one)
    with_moment(one)
    one.add_argument("--param", action="append", metavar="NAME=VALUE", help="a value for $NAME; repeatable")
    one.add_argument("--limit", type=int, default=1_000, metavar="N", help="at most so many rows shown (default: 1000)")

    one = add(
        "check",
        check_command,
        "Fold again under other conditions and compare.",
        "eventlab check --models eventlab.domains.flights --sample 16",
    )
    one.add_argument("what", nargs="?", choices=("selftest",), help="selftest: the checker itself, on folds with known faults")
    with_models(one)
    one.add_argument("--sample", type=int, metavar="N", help="one stream in N (default: all)")
    one.add_argument(
        "--level", choices=("quick", "standard", "deep"), default="standard",
        help="quick: folds twice, of a sample above a million events; standard: four variants, and every other way to fold",
    )  # fmt: skip
    one.add_argument("--patience", type=float, default=60.0, metavar="SECONDS", help="so long one event may take (default: 60)")
    one.add_argument("--memory", type=float, metavar="GIB", help="so much memory a process may take (default: 40 %% of all)")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")

    one = add(
        "schema",
        schema_command,
        "Stored schemas against the classes of today; every event upcast before a deploy; released JSON Schemas.",
        "eventlab schema dry-run --models eventlab.domains.flights",
    )
    one.add_argument(
        "verb", choices=("check", "dry-run", "diff", "json", "compat"),
        help="check: what of the stored versions cannot be read, or may have been renamed; dry-run: upcast every event, and say "
        "what fails, is newly None, or is lost; diff: two versions of a type; json: JSON Schemas of the classes; compat: steps "
        "of a folder NAME/1.0.0.json whose declared compatibility is untrue",
    )  # fmt: skip
    one.add_argument("type", nargs="?", help="diff, json: an event type; compat: the folder")
    with_models(one)
    one.add_argument("--old", type=int, metavar="N", help="diff: from this version (default: the one before)")
    one.add_argument("--new", type=int, metavar="N", help="diff: to this version (default: the class, or the newest stored)")
    one.add_argument(
        "--strict", action="store_true",
        help="check: questions and warnings fail too, and not errors alone; dry-run: so do values that are newly None or lost",
    )  # fmt: skip
    one.add_argument("--ignore", action="append", metavar="PATH", help="compat: a field that differs on purpose; repeatable")

    one = add(
        "replay-diff",
        replay_diff_command,
        "Fold the log with the code of today and with that of a revision, a wheel or a folder, and compare.",
        "eventlab replay-diff --base HEAD~1 --models shop.orders",
    )
    with_models(one)
    one.add_argument("--base", required=True, metavar="REV", help="a git revision, a .whl file, or a folder with the old code")
    one.add_argument("--accepted", metavar="FILE", help="TOML: [[accepted]] with model, field, reason, and perhaps until")
    one.add_argument("--until", type=int, metavar="N", help="only until this position")

    one = add(
        "goldens",
        goldens_command,
        "Hold what models give against what was kept of them, and say what changed: the code, the engine, or neither.",
        "eventlab goldens goldens/ --models shop.orders",
    )
    with_models(one)
    one.add_argument("folder", help="where they are kept: beside the store, or in the repository")
    one.add_argument("--accept", action="store_true", help="keep what they give now, after showing what is different")
    one.add_argument("--until", type=int, metavar="N", help="with --accept: as of this position (default: the head)")

    one = add(
        "discover",
        discover_command,
        "What happens in a log: what follows on what, and the ways that streams took.",
        "eventlab discover --category flight",
    )
    with_models(one)
    one.add_argument("--category", action="append", metavar="NAME", help="only streams of this category (may be repeated)")
    one.add_argument("--step", metavar="FIELD", help="the field whose value is the step (default: the event type)")
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows of each table (default: 20)")
    one.add_argument("--mermaid", action="store_true", help="the process map as a Mermaid flowchart")
    one.add_argument("--nodes", type=int, default=24, metavar="N", help="steps in the drawing, the most frequent (default: 24)")
    one.add_argument("--save", metavar="FILE", help="write the process that is found, to be corrected and held to: conform")

    one = add(
        "conform",
        conform_command,
        "Hold a log against a process or a board: what happens that should not, and what never does.",
        "eventlab conform order.toml --fail-under fitness=0.99",
    )
    one.add_argument("design", help="a TOML file: a process (discover --save) or a board (el.storm, board draw)")
    one.add_argument("--step", metavar="FIELD", help="the field whose value is the step (default: the event type)")
    one.add_argument(
        "--fail-under", action="append", metavar="NAME=SHARE",
        help="fitness=0.99, coverage=0.5, drift=0 at most (default: any deviation fails)",
    )  # fmt: skip
    one.add_argument("--accepted", metavar="FILE", help="deviations that are borne: [[accepted]] kind, step, then, reason, until")
    one.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many rows (default: 20)")

    one = add(
        "board",
        board_command,
        "A board of event storming: show, review, diff it, make code of it, or draw it from code or from a log.",
        "eventlab board code shop.board.toml -o shop/",
    )
    one.add_argument("verb", choices=("show", "review", "diff", "code", "draw"), help="draw: of --models, else of the store")
    one.add_argument("file", help="the board's TOML file")
    with_models(one)
    one.add_argument("-o", "--out", metavar="FOLDER", help="code: where it is written; what a person wrote stays (default: here)")
    one.add_argument("--since", metavar="FILE", help="diff: the older board")
    one.add_argument("--name", help="draw: the name of the board (default: that of the file)")
    one.add_argument("--force", action="store_true", help="draw: over a file that is there")

    one = add(
        "docs",
        docs_command,
        "A catalogue of events, commands, aggregates and projections: Markdown, one HTML page, and JSON Schema.",
        "eventlab docs -o docs/ --models shop.orders",
    )
    with_models(one)
    one.add_argument("-o", "--out", required=True, metavar="FOLDER", help="where it is written, over files of the same names")
    one.add_argument("--code-only", action="store_true", help="of the code alone: no counts, versions and examples of a store")

    one = add(
        "lint",
        lint_command,
        "What a reviewer would say of the models: names, how they fit together, what is not repeatable.",
        "eventlab lint --models eventlab.domains.ordering",
    )
    with_models(one)
    one.add_argument("--only", action="store_true", help="the models themselves, and not whether every event has a reader")

    one = add(
        "snapshots",
        snapshots_command,
        "Hold every snapshot against the fold of its stream, or drop them all.",
        "eventlab snapshots prove --models eventlab.domains.flights",
    )
    one.add_argument("verb", choices=("prove", "drop"), help="prove: fold from the first event on, and compare; drop: delete all")
    with_models(one)

    one = add("verify", verify_command, "Look for damage: digests, positions, versions, payloads.", "eventlab verify --full")
    one.add_argument("--full", action="store_true", help="read everything, not digests and numbers alone")

    add(
        "seal",
        seal_command,
        "Write the hot events as segments of typed columns; readers and writers see no difference.",
        "eventlab seal --store data/shop",
    )

    one = add(
        "compact",
        compact_command,
        "Rewrite sealed events sorted by stream, where it is due; a stream is loaded from fewer files then.",
        "eventlab compact --all --store data/shop",
    )
    one.add_argument("--all", action="store_true", help="all that is sealed, at once")

    one = add("gc", gc_command, "Delete files that are no part of the log any more.", "eventlab gc --grace 60 --store data/shop")
    one.add_argument(
        "--grace",
        type=wait_of,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help="how long a replaced file stays for readers that may be about to open it (default: %(default)s)",
    )

    one = add(
        "backup",
        backup_command,
        "Copy a store to a new folder, whole as of one commit, while it is in use; the copy is verified.",
        "eventlab backup --store data/shop --to backups/shop-monday",
    )
    one.add_argument("--to", required=True, metavar="DIR", help="a folder that is not there yet, or is empty")

    one = add(
        "restore",
        restore_command,
        "Make a store of a backup, which is verified first and stays as it is.",
        "eventlab restore --from backups/shop-monday --store data/shop",
    )
    one.add_argument("--from", dest="source", required=True, metavar="DIR", help="the folder of the backup")

    add(
        "upgrade",
        upgrade_command,
        "Bring a store of an older format to today's; it can be interrupted and repeated. Back it up before.",
        "eventlab upgrade --store data/shop",
    )

    one = add(
        "lab", lab_command, "Open JupyterLab on the first notebook, with its news and update checks off.",
        "eventlab lab notebooks/05_query_time.ipynb -- --port=8899",
    )  # fmt: skip
    one.add_argument("notebook", nargs="?", help="another notebook")
    one.add_argument("options", nargs=argparse.REMAINDER, metavar="-- OPTION", help="options of JupyterLab")
    one.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    return parser
