"""The whole line in one command: it draws or links its data, then runs the public commands."""

from facerec.cli.demo.line import run_demo

__all__ = ["run_demo"]
