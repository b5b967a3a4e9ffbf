"""Who takes part with which stills, and the plans of the videos."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.simulate_cast import Cast, Person, Still, list_people, read_cast, write_cast
from eval.simulate_settings import SimulationSettings
from eval.simulate_stills import choose_cast
from eval.simulate_walks import in_picture, plan_scenes
from facerec.checks import InputError
from facerec.detection import AlignedDetector

MARKS = ((38.0, 51.0), (73.0, 51.0), (56.0, 71.0), (41.0, 92.0), (70.0, 92.0))


def write_still(path, seed, side=112):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC))


def write_people(folder, counts):
    for person, count in enumerate(counts):
        for number in range(count):
            write_still(folder / f"p{person:02d}" / f"{number}.png", [person, number])
    return folder


def choose(folder, **changes):
    settings = SimulationSettings(**{"people": 6, "unknown_share": 1 / 3, **changes})
    return choose_cast(list_people([folder], frozenset()), settings, AlignedDetector())


def make_cast(people, unknown=2, stills=3):
    def still(name, number):
        return Still(Path(f"/{name}/{number}"), f"{name}/{number}", name, "0" * 64, MARKS, 0.0)

    cast = []
    for number in range(people):
        name = f"p{number:02d}"
        is_known = number >= unknown
        document = still(name, "document") if is_known else None
        videos = tuple(still(name, i) for i in range(stills))
        role = "enrolled" if is_known else "unknown"
        cast.append(Person(name, role, ("dev", "test")[number % 2], document, videos))
    return Cast(tuple(cast))


def test_everybody_has_one_part_and_no_still_serves_twice(tmp_path):
    cast = choose(write_people(tmp_path, [3, 2, 1, 4, 2, 1, 5, 1, 2]), documents_only=1)
    roles = Counter(person.role for person in cast.people)
    assert roles == {"enrolled": 4, "unknown": 2, "document only": 1}
    for person in cast.people:
        keys = [still.key for still in person.videos]
        assert (person.document is None) == (person.role == "unknown")
        assert bool(keys) == (person.role != "document only")
        if person.document is not None:
            assert person.document.key not in keys
        assert all(still.person == person.name for still in person.videos)
    halves = Counter((person.role, person.half) for person in cast.people)
    assert halves["enrolled", "dev"] == halves["enrolled", "test"] == 2
    assert halves["unknown", "dev"] == halves["unknown", "test"] == 1


def test_people_with_one_still_are_never_enrolled(tmp_path):
    cast = choose(write_people(tmp_path, [1, 1, 1, 1, 2, 2, 2, 2]), documents_only=2)
    for person in cast.people:
        assert (person.role == "enrolled") == (person.name >= "p04")


def test_the_cast_follows_the_seed_alone(tmp_path):
    write_people(tmp_path, [2] * 12)
    assert choose(tmp_path, seed=3) == choose(tmp_path, seed=3)
    assert choose(tmp_path, seed=3) != choose(tmp_path, seed=4)


def test_copies_and_bad_stills_are_named_and_not_used(tmp_path):
    write_people(tmp_path, [2, 2, 2, 2, 1, 1])
    good = (tmp_path / "p00" / "0.png").read_bytes()
    (tmp_path / "p01" / "9.png").write_bytes(good)
    brighter = cv2.convertScaleAbs(cv2.imread(str(tmp_path / "p02" / "0.png")), alpha=0.9, beta=9)
    cv2.imwrite(str(tmp_path / "p02" / "8.png"), brighter)
    (tmp_path / "p03" / "7.png").write_bytes(good[:200])
    write_still(tmp_path / "p04" / "6.png", 99, side=48)
    rejected = dict(choose(tmp_path).rejected)
    same = {key for key, reason in rejected.items() if reason.startswith("the same file as")}
    assert same in ({"p01/9.png"}, {"p00/0.png"})
    near = {key for key, reason in rejected.items() if reason.startswith("nearly the same")}
    assert near == {"p02/8.png"}
    assert rejected["p03/7.png"] in ("truncated", "damaged")
    assert rejected["p04/6.png"] == "too small: 15 pixels between the eyes, 20 needed"
    assert len(rejected) == 4


def test_too_few_stills_say_how_many_there_are(tmp_path):
    write_people(tmp_path, [2, 2, 1])
    (tmp_path / "p00" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"4 enrolled people need two .* 1 and 2 were found among"):
        choose(tmp_path)


def test_a_name_in_two_sources_is_refused_unless_left_out(tmp_path):
    for source in ("a", "b"):
        write_still(tmp_path / source / "sam" / "0.png", 1)
        write_still(tmp_path / source / f"only {source}" / "0.png", 2)
    with pytest.raises(InputError, match="one person or two"):
        list_people([tmp_path / "a", tmp_path / "b"], frozenset())
    listed = list_people([tmp_path / "a", tmp_path / "b"], frozenset({"sam"}))
    assert list(listed) == ["only a", "only b"]
    with pytest.raises(InputError, match="no picture there has an identity"):
        list_people([tmp_path / "a" / "sam"], frozenset())


def test_a_cast_is_read_back_as_it_was_unless_the_inputs_differ(tmp_path):
    cast = Cast(make_cast(5).people, (("p/1.png", "no face"),))
    write_cast(tmp_path / "cast.json", "f1", cast)
    assert read_cast(tmp_path / "cast.json", "f1") == cast
    assert read_cast(tmp_path / "cast.json", "f2") is None
    assert read_cast(tmp_path / "none.json", "f1") is None


def test_everybody_walks_once_a_size_and_visit_within_the_own_half():
    settings = SimulationSettings(sizes=(12, 40), visits=2, people_a_scene=3)
    cast = make_cast(11)
    scenes = plan_scenes(cast, settings)
    half = {person.name: person.half for person in cast.people}
    walks = Counter((p.person, scene.size) for scene in scenes for p in scene.tracks)
    assert walks == {(person, size): 2 for person in half for size in (12, 40)}
    assert len({scene.name for scene in scenes}) == len(scenes)
    for scene in scenes:
        assert {half[plan.person] for plan in scene.tracks} == {scene.half}
        assert 1 <= len(scene.tracks) <= 3
        assert [plan.track for plan in scene.tracks] == list(range(1, len(scene.tracks) + 1))
        assert "simulated" in scene.name
    used = {plan.still.key for scene in scenes for plan in scene.tracks if plan.person == "p05"}
    assert used == {"p05/0", "p05/1", "p05/2"}


@pytest.mark.parametrize("size", [12, 64])
def test_walks_keep_their_size_and_come_into_the_picture(size):
    settings = SimulationSettings(sizes=(size,), seconds=4.0, people_a_scene=4)
    for scene in plan_scenes(make_cast(40), settings):
        for plan in scene.tracks:
            times = np.arange(settings.count_frames()) / settings.fps
            widths = [plan.walk.size(t) for t in times]
            assert size * 11 / 12 <= min(widths) <= max(widths) <= size * 13 / 12
            seen = [in_picture(plan.walk, t, settings.width, settings.height) for t in times]
            assert sum(seen) >= len(seen) / 3
            assert all(abs(plan.walk.pose(t).yaw_deg) <= settings.yaw_deg for t in times)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.4])
def test_impostors_take_their_share_of_the_frames_exactly(share):
    settings = SimulationSettings(impostor_frames=share, sizes=(20,))
    half = {person.name: person.half for person in make_cast(12).people}
    for scene in plan_scenes(make_cast(12), settings):
        here = {plan.person for plan in scene.tracks}
        for plan in scene.tracks:
            seen = {
                frame
                for frame in range(settings.count_frames())
                if in_picture(plan.walk, frame / settings.fps, settings.width, settings.height)
            }
            assert len(plan.impostor_at) == round(share * len(seen))
            assert plan.impostor_at <= seen
            if plan.impostor_at:
                assert plan.impostor not in here
                assert half[plan.impostor] == scene.half
                assert plan.impostor_still.person == plan.impostor


def test_impostors_change_nothing_else_of_the_plans():
    plain, mixed = (
        plan_scenes(make_cast(12), SimulationSettings(impostor_frames=share))
        for share in (0.0, 0.3)
    )
    for one, other in zip(plain, mixed, strict=True):
        assert [(p.person, p.still, p.walk) for p in one.tracks] == [
            (p.person, p.still, p.walk) for p in other.tracks
        ]


def test_impostors_need_somebody_else():
    settings = SimulationSettings(impostor_frames=0.2, people_a_scene=12)
    with pytest.raises(InputError, match="raise --people or lower --people-a-scene"):
        plan_scenes(make_cast(12), settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": ()}, "at least one width"),
        ({"sizes": (12, 12)}, "sizes must differ"),
        ({"sizes": (4,)}, r"size must lie in \[8, 256\]"),
        ({"sizes": (200,)}, "need a picture of at least 600 each way, got 960 x 540"),
        ({"width": 641}, "must be even, got 641 x 540"),
        ({"people": 2, "unknown_share": 0.5}, "each half needs an enrolled person"),
        ({"unknown_share": 1.0}, "each half needs an enrolled person"),
        ({"low_light": float("nan")}, r"low_light must lie in \[0, 1\]"),
        ({"impostor_frames": 0.95}, "impostor_frames must lie in"),
        ({"defocus_px_range": (2, 1)}, "defocus_px_range must run from least to greatest"),
        ({"noise_gain_range": 3}, "noise_gain_range must be two numbers"),
        ({"fps": 2.5}, "fps must be a whole number"),
        ({"yaw_deg": 50}, "yaw_deg must lie in"),
    ],
)
def test_bad_settings_say_what_is_wrong(changes, message):
    with pytest.raises(InputError, match=message):
        SimulationSettings(**changes)
