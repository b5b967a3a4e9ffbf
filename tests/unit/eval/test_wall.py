import json
import sys

import pytest

from eval.bench.wall import main, measure_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_gives_its_exit_code_and_memory(code):
    wall, peak, found = measure_command([sys.executable, "-c", f"raise SystemExit({code})"], True)
    assert found == code and wall > 0 and peak > 0


def test_the_result_is_written_and_the_exit_code_passed_on(tmp_path, capsys):
    out = tmp_path / "wall.json"
    words = ["--repeat", "2", "--json", str(out), "--", sys.executable, "-c", "raise SystemExit(5)"]
    assert main(words) == 5
    assert "exit [5]" in capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert len(result["wall_s"]) == 2 and result["exit_codes"] == [5]
    assert result["peak_bytes"] > 0 and result["provenance"]["versions"]
