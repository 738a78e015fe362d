"""What --data may mean, and that corpora with names are whole or refused."""

from __future__ import annotations

import hashlib
import http.server
import math
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from digests import digests

from minigen import corpora
from minigen.corpora import Corpus, known, pictures, tales, tunes
from minigen.data import prepare, scan
from minigen.errors import UserError


def put(path: Path, content: str = "some text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def find(*data: str | Path, separator: str | None = None) -> Corpus:
    """`corpora.find` among files only: the folder of the corpora does not exist."""
    return corpora.find([str(one) for one in data], Path("no such folder"), separator)


# ---- files, folders, patterns, names ----


def test_a_file_is_a_corpus_with_its_name(tmp_path: Path) -> None:
    path = put(tmp_path / "moby.txt")
    assert find(path) == Corpus("moby", (path,))


def test_several_files_keep_their_order_and_none_comes_twice(tmp_path: Path) -> None:
    b, a, c = (put(tmp_path / name) for name in ("b.txt", "a.txt", "c.txt"))
    expected = Corpus("b+2", (b, a, c))
    assert find(b, a, c) == expected
    assert find(f"{b},{a}, {c},") == expected
    assert find(b, tmp_path / "[ab].txt", b, c) == expected


def test_a_folder_means_all_files_below_it_sorted(tmp_path: Path) -> None:
    """Hidden files, and all in hidden folders, are no text of the user's; links to files are."""
    folder = tmp_path / "books"
    files = [put(folder / name) for name in ("a.txt", "b/a.md", "b/c/d", "z")]
    for hidden in (".hidden", ".git/config", "b/.cache/x"):
        put(folder / hidden)
    os.mkfifo(folder / "fifo")
    (folder / "broken").symlink_to("nothing")
    (folder / "loop").symlink_to(folder)  # followed again and again, it would go on for ever
    (folder / "link").symlink_to(folder / "z")
    found = find(folder)
    assert replace(found, notes=()) == Corpus("books", (*files[:3], folder / "link", files[3]))
    assert found.notes == (
        f"skipped 1 link that leads nowhere, such as {folder / 'broken'}",
        f"1 file {folder / 'z'}, which is {folder / 'link'} too, is read twice",
    )


def test_a_folder_has_its_own_name_also_as_a_dot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "books" / "a.txt")
    monkeypatch.chdir(tmp_path / "books")
    assert find(".").name == "books"


def test_a_pattern_means_what_it_matches(tmp_path: Path) -> None:
    a, b, c = (put(tmp_path / name) for name in ("a.txt", "b.txt", "deep/c.txt"))
    assert find(tmp_path / "*.txt") == Corpus("a+1", (a, b))
    assert find(tmp_path / "**" / "*.txt").train == (a, b, c)
    assert find(tmp_path / "a*") == Corpus("a", (a,))


def test_what_exists_as_a_file_is_never_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tales", "a[1].txt", "one,two", "*"):
        put(tmp_path / name)
        assert find(name).train == (Path(name),)


@pytest.mark.parametrize("name", ["Über uns", "../x", "a/b", "-rf", "?", "...", "x" * 200, "漢字"])
def test_names_are_safe_as_folders(tmp_path: Path, name: str) -> None:
    folder = tmp_path / (name.replace("/", "\\") if name != "..." else "....")
    put(folder / "text")
    safe = find(folder).name
    assert re.fullmatch(r"[\w+][\w+-]*", safe)
    (tmp_path / "runs" / safe).mkdir(parents=True)
    assert len(safe) <= 50


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def test_pictures_among_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    """In a folder, by a pattern, and in a list, as a shell makes of a pattern."""
    folder = tmp_path / "books"
    texts = [put(folder / name) for name in ("b.txt", "c.txt")]
    (folder / "a.png").write_bytes(PNG)
    note = f"skipped 1 binary file {folder / 'a.png'}"
    for given in ([folder], [folder / "*"], sorted(folder.iterdir())):
        found = find(*given)
        assert (found.train, found.notes) == (tuple(texts), (note,))
    (folder / "d.bin").write_bytes(b"\1\2\3")
    assert find(folder).notes == (f"skipped 2 binary files, such as {folder / 'a.png'}",)


def test_a_binary_file_alone_and_nothing_but_binary_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    assert find(tmp_path / "a.png").train == (tmp_path / "a.png",)
    with pytest.raises(UserError, match=r"a\.png is binary"):
        scan(find(tmp_path / "a.png").train, None)
    with pytest.raises(UserError, match="all of the 2 files are binary"):
        find(tmp_path)


def test_text_in_another_encoding_is_never_left_out(tmp_path: Path) -> None:
    put(tmp_path / "a.txt")
    for content in ("옛날 어느 마을에".encode("cp949"), "Łódź".encode("utf-16")):
        (tmp_path / "b.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"b\.txt is not UTF-8.*iconv -f"):
            scan(find(tmp_path).train, None)


@pytest.mark.parametrize("name", ["a.csv", "b.tsv", "c.json", "d.JSONL"])
def test_tables_are_said_to_be_read_as_text(tmp_path: Path, name: str) -> None:
    """Where they are most of the files, and not one among many."""
    path = put(tmp_path / name, "1,2\n")
    assert find(path).notes == (f"{path} is read as plain text, its quotes and commas too",)
    for other in ("x.txt", "y.txt"):
        put(tmp_path / other)
    assert find(tmp_path).notes == ()


def test_a_separator_may_be_typed_in_a_shell(tmp_path: Path) -> None:
    path = put(tmp_path / "a")
    assert find(path, separator=r"\n--\n").separator == "\n--\n"
    assert find(path, separator="\n\n").separator == "\n\n"
    with pytest.raises(UserError, match="separator is empty"):
        find(path, separator="")


# ---- what is wrong, in one line ----


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("shakespear", "shakespeare"), ("tails", "tales"), ("inptu.txt", "input.txt")],
)
def test_an_unknown_name_is_answered_with_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "input.txt")
    with pytest.raises(UserError) as caught:
        find(typed)
    message = str(caught.value)
    assert f"no such file or corpus: '{typed}'" in message
    assert f"did you mean {meant}?" in message
    assert all(name in message for name in corpora.NAMES)
    assert "\n" not in message


def test_a_typing_error_in_a_path_is_answered_with_the_file_beside_it(tmp_path: Path) -> None:
    path = put(tmp_path / "input.txt")
    with pytest.raises(UserError, match=re.escape(f"did you mean {path}?")):
        find(tmp_path / "inptu.txt")
    with pytest.raises(UserError) as caught:
        find("qqqq")
    assert "did you mean" not in str(caught.value)


def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    for name, complaint in {
        "empty": "holds no files",
        "fifo": "neither a file nor a folder",
        "loop": "cannot read .*loop: .*symbolic links",
        "broken": "cannot read .*broken: No such file",
        "*.txt": "no such file or corpus",
    }.items():
        with pytest.raises(UserError, match=complaint) as caught:
            find(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    for nothing in ([], [","]):
        with pytest.raises(UserError, match="--data is empty"):
            find(*nothing)
    with pytest.raises(UserError, match="no such file or corpus: ''"):
        find("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_not_skipped(tmp_path: Path) -> None:
    put(tmp_path / "a.txt")
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(UserError, match=r"cannot read .*secret: Permission denied"):
        find(tmp_path)


# ---- tales ----


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder where tales have been written."""
    folder = tmp_path_factory.mktemp("data")
    corpora.find(["tales"], folder)
    return folder


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_tales_are_written_once(home: Path) -> None:
    before = stamps(home / "tales")
    assert set(before) == {"train.txt", "val.txt", "facts.json"}
    corpora.find(["tales"], home)
    assert stamps(home / "tales") == before


def test_damaged_or_old_tales_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tales.write
    monkeypatch.setattr(tales, "write", lambda folder: write(folder, 20_000, 5_000))  # faster
    corpora.find(["tales"], tmp_path)
    whole = digests(tmp_path / "tales")
    facts = tmp_path / "tales" / "facts.json"
    said = facts.read_bytes()
    old = said.replace(f'"version": {tales.VERSION}'.encode(), b'"version": 0')
    assert old != said
    for damaged, content in [
        (facts, old),
        (facts, b"{}"),
        (facts, b"[1]"),
        (facts, None),
        (facts.with_name("train.txt"), facts.with_name("train.txt").read_bytes()[:-9]),
        (facts.with_name("val.txt"), None),
    ]:
        damaged.unlink()
        if content is not None:
            damaged.write_bytes(content)
        corpora.find(["tales"], tmp_path)
        assert digests(tmp_path / "tales") == whole


def test_the_floor_counts_the_bytes_that_the_stream_counts(home: Path) -> None:
    """Each tale is a document; and bits of each tale, over n_bytes, are the floor."""
    corpus = corpora.find(["tales"], home)
    tokenizer, train, val = prepare(corpus, None, "byte", 0, home / "cache")
    stream = tokenizer.decode(val.read(0, val.n_tokens).tolist())
    documents = stream.split("<|endoftext|>")[1:]
    assert val.n_documents == len(documents) > 100
    assert train.n_documents > 1000
    bits = [tales.check(document).bits for document in documents]
    exact = sum(bit for bit in bits if bit is not None)
    assert None not in bits
    assert val.n_bytes == sum(len(document.encode("utf-8")) for document in documents)
    assert corpus.floor == pytest.approx(exact / val.n_bytes, rel=1e-6)


def test_pictures_are_a_corpus_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pictures.write
    monkeypatch.setattr(pictures, "write", lambda folder: write(folder, 20_000, 5_000, 3_000))
    corpus = corpora.find(["pictures"], tmp_path)
    folder = tmp_path / "pictures"
    files = (folder / "train.txt",), (folder / "val.txt",)
    assert (corpus.name, corpus.train, corpus.val, corpus.separator) == ("pictures", *files, "\n\n")
    documents = files[1][0].read_text(encoding="ascii").removesuffix("\n").split("\n\n")
    bits = [pictures.check(document).bits for document in documents]
    exact = sum(bit for bit in bits if bit is not None)
    assert corpus.floor == pytest.approx(exact / sum(map(len, documents)), rel=1e-6)
    (folder / "held_out.txt").write_text("damaged", encoding="ascii")
    corpora.find(["pictures"], tmp_path)
    assert len((folder / "held_out.txt").read_text(encoding="ascii").split("\n\n")) > 5
    with pytest.raises(UserError, match="pictures goes with tales and pictures and tunes only"):
        corpora.find(["pictures"], tmp_path, "#")


def test_synthetic_corpora_are_one_together(tmp_path: Path) -> None:
    """A model that knows all grammars still has to guess of which the next document is."""
    for module, sizes in ((tales, (16_000, 3_000)), (tunes, (6_000, 2_000, 1_000))):
        name = module.__name__.rpartition(".")[2]
        module.write(tmp_path / name, *sizes)
    both = corpora.find(["tales,tunes"], tmp_path)
    assert both.name == "tales+tunes"
    # There is more than twice as much of the tales.
    assert both.train == tuple(tmp_path / f"{n}/train.txt" for n in ("tales", "tunes", "tunes"))
    n_train = [len(path.read_text(encoding="ascii").split("\n\n")) for path in both.train]
    bits = n_bytes = 0.0
    n_of_each = n_train[0], sum(n_train[1:])
    for path, n, check in zip(both.val, n_of_each, (tales.check, tunes.check), strict=True):
        for document in path.read_text(encoding="ascii").removesuffix("\n").split("\n\n"):
            bits += (check(document).bits or math.nan) - math.log2(n / sum(n_train))
            n_bytes += len(document)
    assert both.floor == pytest.approx(bits / n_bytes, rel=1e-6)
    twice = corpora.find(["tunes", "tales", "tunes"], tmp_path)
    assert twice.name == "tunes+tales" and twice.floor == pytest.approx(both.floor)


def test_tales_stand_alone(tmp_path: Path) -> None:
    """Their validation text and their floor would be those of another text."""
    path = put(tmp_path / "a")
    for data, separator in (
        (["tales", str(path)], None),
        ([f"{path},tales"], None),
        (["tales"], "#"),
    ):
        with pytest.raises(UserError, match="tales goes with"):
            corpora.find(data, tmp_path, separator)


# ---- downloads ----


class Website(http.server.SimpleHTTPRequestHandler):
    """Serves the text, a longer one, one cut short in transfer, or 404; counts what was asked."""

    text = b"To be, or not to be\n" * 50
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        content = {
            "/text": self.text,
            "/longer": self.text + b"!",
            "/changed": self.text[:-1] + b"?",
            "/cut": self.text[:500],
        }.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.text if self.path == "/cut" else content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def website() -> Iterator[str]:
    Website.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Website) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture
def published(website: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The website's text takes the place of tiny Shakespeare."""
    monkeypatch.setattr(known, "SHAKESPEARE_URL", f"{website}/text")
    monkeypatch.setattr(known, "SHAKESPEARE_BYTES", len(Website.text))
    monkeypatch.setattr(known, "SHAKESPEARE_SHA256", hashlib.sha256(Website.text).hexdigest())
    return website


def test_shakespeare_is_downloaded_once(tmp_path: Path, published: str) -> None:
    path = tmp_path / "shakespeare" / "tinyshakespeare.txt"
    for _ in range(2):
        assert corpora.find(["shakespeare"], tmp_path) == Corpus("shakespeare", (path,))
        assert path.read_bytes() == Website.text
    assert Website.asked == ["/text"]
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_download_is_made_again(tmp_path: Path, published: str) -> None:
    path = put(tmp_path / "shakespeare" / "tinyshakespeare.txt", "To be, or n")
    corpora.find(["shakespeare"], tmp_path)
    assert path.read_bytes() == Website.text


def test_shakespeare_goes_with_other_files(tmp_path: Path, published: str) -> None:
    path = put(tmp_path / "a.txt")
    corpus = corpora.find([f"shakespeare,{path}"], tmp_path)
    assert corpus.name == "tinyshakespeare+1"
    assert corpus.train == (tmp_path / "shakespeare" / "tinyshakespeare.txt", path)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("/longer", "does not hold"),
        ("/changed", "does not hold"),
        ("/cut", "does not hold|cannot download"),
        ("/missing", "cannot download .*404"),
    ],
)
def test_wrong_content_is_refused_and_nothing_is_left(
    tmp_path: Path,
    published: str,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    complaint: str,
) -> None:
    monkeypatch.setattr(known, "SHAKESPEARE_URL", published + page)
    by_hand = tmp_path / "shakespeare" / "tinyshakespeare.txt"
    with pytest.raises(UserError, match=complaint) as caught:
        corpora.find(["shakespeare"], tmp_path)
    assert f"save it as {by_hand}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_offline_the_error_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SHAKESPEARE_URL", "http://127.0.0.1:9/text")  # nobody answers
    with pytest.raises(UserError, match=r"go online, or .* save it as .*tinyshakespeare\.txt"):
        corpora.find(["shakespeare"], tmp_path)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        corpora.find(["shakespeare"], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.network
def test_the_published_text_is_the_one_that_is_expected(tmp_path: Path) -> None:
    assert corpora.find(["shakespeare"], tmp_path).train[0].stat().st_size == 1_115_394
