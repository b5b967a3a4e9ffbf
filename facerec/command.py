"""What every command shares: parser, exit codes, one clear sentence instead of a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from facerec.checks import InputError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the examples' line breaks and shows defaults."""


def build_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=Formatter,
        allow_abbrev=False,
    )


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a sub-command that calls `run`, with `--json` and an example in its help."""
    parser = commands.add_parser(
        name,
        help=description,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    add_json(parser)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`: the whole result with versions, seeds and hashes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole result here")


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse, run, and turn every outcome into an exit code.

    0 done, 2 bad input or usage (one sentence), 1 failure, 130 interrupted (resumable).
    FACEREC_TRACEBACK=1 lets the traceback through, for developers.
    """
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments) or DONE
    except KeyboardInterrupt:
        _say(parser, "interrupted; what was done is kept, run the same command to go on")
        return INTERRUPTED
    except InputError as error:
        _say(parser, str(error))
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if os.environ.get("FACEREC_TRACEBACK"):
            raise
        _say(
            parser,
            f"failed: {type(error).__name__}: {' '.join(str(error).split())} "
            "(FACEREC_TRACEBACK=1 shows where)",
        )
        return FAILED


def _say(parser: argparse.ArgumentParser, message: str) -> None:
    sys.stderr.write(f"{parser.prog}: {message}\n")
