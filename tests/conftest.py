"""Shared fixtures: where real faces are, and where nothing of the user's is touched."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's business: no test fails by the clock.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    folder = Path(os.environ.get("FACEREC_DATA", _BESIDE))
    if not (folder / "weights" / "yunet.onnx").is_file():
        pytest.skip(f"no real faces at {folder}; set FACEREC_DATA to run this test")
    return folder


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's model store."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("FACEREC_HOME", str(home))
    return home


def pytest_terminal_summary(terminalreporter):
    """Say how many tests read real faces: none at all is a poorer run, and must be seen."""
    counts = {
        outcome: sum(
            # A whole module that is skipped is reported by something without keywords.
            "real" in getattr(report, "keywords", ())
            for report in terminalreporter.stats.get(outcome, [])
        )
        for outcome in ("passed", "failed", "skipped")
    }
    terminalreporter.write_line(
        "real-face tests: {passed} passed, {failed} failed, {skipped} skipped".format(**counts)
    )
