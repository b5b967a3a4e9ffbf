"""What every command shares: parser, exit codes, one clear sentence instead of a traceback."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from facerec.checks import InputError, JobError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

# What an OSError says of a path that the user gave.
_BAD_PATH = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    )
)
_DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the examples' line breaks and shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence; its sub-commands do too."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where help is, and exit with code 2."""
        _say(self, f"{message}; {self.prog} --help shows the usage")
        self.exit(BAD_INPUT)


def build_parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help ends with an example."""
    return Parser(
        prog=prog,
        description=textwrap.fill(description, 79),
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


def write_json_result(
    arguments: argparse.Namespace,
    result: dict[str, Any],
    *,
    seed: int | None = None,
    config: dict[str, Any] | None = None,
    hashes: dict[str, str] | None = None,
) -> None:
    """Write a command's result where `--json` says; without `--json` do nothing.

    Args:
        arguments: as parsed.
        result: plain JSON values.
        seed: see `facerec.provenance.provenance`.
        config: the resolved settings, the arguments as they were given when None.
        hashes: name of an input -> its sha256.
    """
    if arguments.json is None:
        return
    from facerec.provenance import write_result

    given = {
        name: _to_json(value)
        for name, value in vars(arguments).items()
        if name not in ("run", "json")
    }
    write_result(arguments.json, result, seed=seed, config=config or given, hashes=hashes)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse, run, and turn every outcome into an exit code.

    0 done, 2 bad input or usage (one sentence), 1 failure, 130 interrupted (resumable).
    FACEREC_TRACEBACK=1 lets the traceback through, for developers.
    """
    arguments = parser.parse_args(argv)
    try:
        _check_json(getattr(arguments, "json", None))
        return arguments.run(arguments) or DONE
    except KeyboardInterrupt as stop:
        usual = "finished parts are kept, run the same command to go on"
        _say(parser, f"interrupted; {str(stop) or usual}")
        return INTERRUPTED
    except InputError as error:
        _say(parser, str(error))
        return BAD_INPUT
    except JobError as error:
        _say(parser, str(error))
        return FAILED
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if os.environ.get("FACEREC_TRACEBACK"):
            raise
        code, sentence = _explain(error)
        _say(parser, sentence)
        return code


def _check_json(path: Path | None) -> None:
    """Refuse a `--json` that cannot be written before the work, not after it."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--json {path} must be a file in a folder that can be written")


def _explain(error: Exception) -> tuple[int, str]:
    """Return the exit code and the sentence for an error that nobody foresaw."""
    if isinstance(error, OSError):
        # Of two paths (a rename) the second is the one the user knows.
        path = error.filename2 or error.filename
        place = f"{path}: " if path is not None else ""
        if error.errno in _DISK_FULL:
            return (
                FAILED,
                f"{place}the disk is full; free some space and run the same command again",
            )
        if error.errno in _BAD_PATH and path is not None:
            return BAD_INPUT, f"{place}{error.strerror}; check the path and its permissions"
    return FAILED, f"failed: {type(error).__name__}: {error} (FACEREC_TRACEBACK=1 shows where)"


def _to_json(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _say(parser: argparse.ArgumentParser, message: str) -> None:
    """Write one line, whatever the message quotes: names may hold newlines and control codes."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(message.split()))
    # A name that is no UTF-8 comes with surrogates, which no stream takes.
    line = line.encode("utf-8", "replace").decode("utf-8")
    sys.stderr.write(f"{parser.prog}: {line}\n")
