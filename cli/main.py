"""Command line: the `cohortium` command, and what it does with errors.

Commands are a table of names; a command's module is imported when it is called, so that ``cohortium --help`` answers
at once. Each is a plain function with typer annotations in the file that the table names.
"""

import errno
import importlib
import sys
from collections.abc import Sequence

import click

from cohortium.common.errors import CohortiumError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

COMMANDS: dict[str, dict[str, tuple[str, str]] | tuple[str, str]] = {
    "simulate": ("cohortium.cli.simulate:simulate", "Run a whole study on this machine: prepare, federate, report."),
    "study": {
        "init": ("cohortium.cli.study:init", "Write a study.toml to start from."),
        "check": ("cohortium.cli.study:check", "Validate a study file; print its hash and what it asks for."),
        "schema": ("cohortium.cli.study:schema", "Print the JSON schema of study.toml."),
        "releases": ("cohortium.cli.releases:releases", "List what a site would release in a study."),
    },
    "site": {
        "init": ("cohortium.cli.site:init", "Write a site.toml to start from."),
        "check": ("cohortium.cli.site:check", "Dry-run the site's data against a study; nothing is sent."),
        "prepare": ("cohortium.cli.site:prepare", "Turn patients and images into the prepared table; nothing is sent."),
        "preview": ("cohortium.cli.preview:preview", "Show what would leave this site in a study."),
        "approve": ("cohortium.cli.site:approve", "Agree to a study, a roster or a changed cohort, by its hash."),
        "join": ("cohortium.cli.site_online:join", "Make this site's keys, to be enrolled by the coordinator."),
        "start": ("cohortium.cli.site_online:start", "Connect to the federation and answer approved studies."),
        "stop": ("cohortium.cli.site_online:stop", "Leave the federation."),
        "log": ("cohortium.cli.site_log:log", "Print and verify what left this site."),
    },
    "federation": {
        "start": ("cohortium.cli.federation:start", "Start the coordinator's server."),
        "stop": ("cohortium.cli.federation:stop", "Stop the coordinator's server."),
        "enrol": ("cohortium.cli.federation:enrol", "Enter a site's keys into the roster."),
        "status": ("cohortium.cli.federation:status", "Show the roster and which sites are connected."),
    },
    "run": ("cohortium.cli.run:run", "Run a study over the connected sites."),
    "features": ("cohortium.cli.features:features", "Radiomics of one image and its mask, as a CSV."),
    "report": ("cohortium.cli.report:report", "Write the report of a finished run again."),
    "predict": ("cohortium.cli.predict:predict", "A new patient's risk by a model of a finished run."),
}
GROUP_HELP = {
    "study": "The study file: what the sites agree on.",
    "site": "What a hospital does: describe its data, check, prepare, approve, connect.",
    "federation": "What a coordinator does: start the server, enrol sites, see who is there.",
}
HELP = """Hospitals keep their images and patient rows, and run a study together.

What leaves a hospital is a sum that only makes sense added to the other hospitals' sums.
"""


class LazyGroup(click.Group):
    """Commands whose modules are imported when they are called, not when they are listed."""

    def __init__(self, name: str, table: dict, *, text: str) -> None:
        # no rich panels here: importing rich would double the time of --help
        super().__init__(name, help=text, no_args_is_help=True)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, dict):
            return LazyGroup(cmd_name, entry, text=GROUP_HELP[cmd_name])
        return _load(cmd_name, *entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.table:
            from difflib import get_close_matches

            close = get_close_matches(args[0], self.table, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(self.table)}"
            ctx.fail(f"no such command {args[0]!r}; {remedy}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        lines = [
            (name, GROUP_HELP[name] if isinstance(entry, dict) else entry[1]) for name, entry in self.table.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(lines)


def _load(name: str, place: str, text: str) -> click.Command:
    """The command behind ``module:function``."""
    import typer
    import typer.core

    module, function = place.split(":")
    typer.core.HAS_RICH = False  # it escapes brackets for rich even where rich is off: "\\[default: ...]"
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, help=text)(getattr(importlib.import_module(module), function))
    return typer.main.get_command(app)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"cohortium {version('cohortium')}")
        ctx.exit()


def root() -> click.Group:
    """The whole command tree."""
    group = LazyGroup("cohortium", COMMANDS, text=HELP)
    group.params.append(
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Version.")
    )
    return group


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit code.

    An error that the user can act on is one message on stderr and code 2, without a traceback; Ctrl-C is code 130.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    resumable = given[:1] in (["simulate"], ["run"])
    hint = "; the same command with --resume goes on from the last finished stage" if resumable else ""
    try:
        code = root().main(given, prog_name="cohortium", standalone_mode=False)
    except CohortiumError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_ERROR
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        # A full disk is met while a file is written, when its name is not known any more
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        remedy = f"check the path, its rights and the free space{hint}"
        click.echo(f"error: {error.filename or 'writing a file'}: {error.strerror}; {remedy}", err=True)
        return EXIT_ERROR
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"interrupted{hint}", err=True)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0
