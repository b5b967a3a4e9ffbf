"""A real process is killed while it enrols; what it acknowledged must be there."""

import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from facerec.gallery.gallery import Gallery
from facerec.models.weights import ModelInfo

CHILD = textwrap.dedent(
    """
    import sys
    import numpy as np
    from facerec.gallery.gallery import Gallery

    with Gallery.open(sys.argv[1]) as gallery:
        rng = np.random.default_rng(int(sys.argv[2]))
        for number in range(100_000):
            vectors = rng.standard_normal((3, 32))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            name = f"{sys.argv[2]}-{number}"
            gallery.enrol(name, vectors.astype(np.float32), np.ones(3, np.float32))
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()
    """
)


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_loses_nothing_acknowledged_and_tears_nothing(tmp_path, seed):
    info = ModelInfo(name="toy", sha256="a" * 64, embedding_dim=32)
    Gallery.create(tmp_path, info).close()
    rng = np.random.default_rng(seed)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), str(seed)], stdout=subprocess.PIPE, text=True
    )
    # The moment is random in the work: after some acknowledgements and part of a next action.
    acknowledged = [child.stdout.readline().strip() for _ in range(int(rng.integers(1, 40)))]
    for _ in range(int(rng.integers(0, 200_000))):
        pass
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL
    acknowledged += rest.split("\n")[:-1]
    with Gallery.open(tmp_path) as gallery:
        found = {person.name: person.samples for person in gallery.people()}
        assert set(acknowledged) <= set(found) and acknowledged[0]
        assert len(found) <= len(acknowledged) + 1  # the one in flight, whole or not at all
        assert set(found.values()) == {3}
        assert gallery.verify_audit() == []
        enrolled = [e.details["person"] for e in gallery.list_audit() if e.action == "enrol"]
        assert sorted(enrolled) == sorted(person.uid for person in gallery.people())
        with gallery.store.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        again = np.eye(32, dtype=np.float32)[:1]
        gallery.enrol("after", again, np.ones(1, np.float32))
        assert gallery.search(again)[0].person == "after"
