"""Corpora: --data finds files and names, and a built-in corpus is complete or an error."""

from __future__ import annotations

import hashlib
import http.server
import math
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from digests import digests

from minigen import corpora
from minigen.corpora import Corpus, builtin, pictures, tales, tunes
from minigen.data import prepare, scan
from minigen.errors import UserError


def put(path: Path, text: str = "some text") -> Path:
    """Write a file and its folder; return the path of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def find(*data: str | Path, separator: str | None = None) -> Corpus:
    """Call `corpora.find` for files: the folder of the built-in corpora does not exist."""
    return corpora.find([str(one) for one in data], Path("no such folder"), separator)


# ---- files, folders, patterns, names ----


def test_a_file_is_a_corpus_with_its_name(tmp_path: Path) -> None:
    """The corpus of a file has the name of the file without its ending."""
    path = put(tmp_path / "moby.txt")
    assert find(path) == Corpus("moby", (path,))


def test_several_files_keep_their_order_and_none_comes_twice(tmp_path: Path) -> None:
    """Files keep the order in which --data names them; a file that is named twice comes once."""
    b, a, c = (put(tmp_path / name) for name in ("b.txt", "a.txt", "c.txt"))
    expected = Corpus("b+2", (b, a, c))
    assert find(b, a, c) == expected
    assert find(f"{b},{a}, {c},") == expected
    assert find(b, tmp_path / "[ab].txt", b, c) == expected


def test_a_folder_means_all_files_below_it_sorted(tmp_path: Path) -> None:
    """Hidden files, all files in hidden folders, and broken links are left out."""
    folder = tmp_path / "books"
    files = [put(folder / name) for name in ("a.txt", "b/a.md", "b/c/d", "z")]
    for hidden in (".hidden", ".git/config", "b/.cache/x"):
        put(folder / hidden)
    os.mkfifo(folder / "fifo")
    (folder / "broken").symlink_to("nothing")
    (folder / "loop").symlink_to(folder)  # a link to its own folder is followed once
    (folder / "link").symlink_to(folder / "z")
    found = find(folder)
    assert replace(found, notes=()) == Corpus("books", (*files[:3], folder / "link", files[3]))
    assert found.notes == (
        f"skipped 1 broken link {folder / 'broken'}",
        f"read twice: 1 file {folder / 'z'}, which is the same file as {folder / 'link'}",
    )


def test_the_current_folder_is_named_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus of the folder "." has the name of that folder."""
    put(tmp_path / "books" / "a.txt")
    monkeypatch.chdir(tmp_path / "books")
    assert find(".").name == "books"


def test_a_pattern_names_the_files_that_it_matches(tmp_path: Path) -> None:
    """A pattern names all files that it matches, sorted; ** matches folders at any depth."""
    a, b, c = (put(tmp_path / name) for name in ("a.txt", "b.txt", "deep/c.txt"))
    assert find(tmp_path / "*.txt") == Corpus("a+1", (a, b))
    assert find(tmp_path / "**" / "*.txt").train == (a, b, c)
    assert find(tmp_path / "a*") == Corpus("a", (a,))


def test_an_existing_file_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named like a corpus, a pattern or a list is that file."""
    monkeypatch.chdir(tmp_path)
    for name in ("tales", "a[1].txt", "one,two", "*"):
        put(tmp_path / name)
        assert find(name).train == (Path(name),)


@pytest.mark.parametrize("name", ["Über uns", "../x", "a/b", "-rf", "?", "...", "x" * 200, "漢字"])
def test_the_name_of_a_corpus_is_safe_as_a_folder(tmp_path: Path, name: str) -> None:
    """The name of a corpus is a folder name of at most 50 letters, digits, _, - and +."""
    folder = tmp_path / (name.replace("/", "\\") if name != "..." else "....")
    put(folder / "text")
    safe = find(folder).name
    assert re.fullmatch(r"[\w+][\w+-]*", safe)
    (tmp_path / "runs" / safe).mkdir(parents=True)
    assert len(safe) <= 50


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def test_binary_files_among_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    """A folder, a pattern, and a list of files leave out the binary files, with a note."""
    folder = tmp_path / "books"
    texts = [put(folder / name) for name in ("b.txt", "c.txt")]
    (folder / "a.png").write_bytes(PNG)
    note = f"skipped 1 binary file {folder / 'a.png'}"
    for data in ([folder], [folder / "*"], sorted(folder.iterdir())):
        found = find(*data)
        assert (found.train, found.notes) == (tuple(texts), (note,))
    (folder / "d.bin").write_bytes(b"\1\2\3")
    assert find(folder).notes == (f"skipped 2 binary files, such as {folder / 'a.png'}",)


def test_binary_files_without_a_text_are_refused(tmp_path: Path) -> None:
    """A binary file alone is an error, and so are several binary files without a text."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    assert find(tmp_path / "a.png").train == (tmp_path / "a.png",)
    with pytest.raises(UserError, match=r"a\.png is binary"):
        scan(find(tmp_path / "a.png").train, None)
    with pytest.raises(UserError, match="all of the 2 files are binary"):
        find(tmp_path)


def test_a_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    """A text in another encoding is an error, also among other files."""
    put(tmp_path / "a.txt")
    for data in ("옛날 어느 마을에".encode("cp949"), "Łódź".encode("utf-16")):
        (tmp_path / "b.txt").write_bytes(data)
        with pytest.raises(UserError, match=r"b\.txt is not UTF-8.*iconv -f"):
            scan(find(tmp_path).train, None)


@pytest.mark.parametrize("name", ["a.csv", "b.tsv", "c.json", "d.IPYNB"])
def test_a_note_says_that_tables_are_read_as_text(tmp_path: Path, name: str) -> None:
    """There is a note if most of the files are tables, and none if only a few are."""
    path = put(tmp_path / name, "1,2\n")
    assert find(path).notes == (f"{path} is read as plain text, its quotes and commas too",)
    for other in ("x.txt", "y.txt"):
        put(tmp_path / other)
    assert find(tmp_path).notes == ()


def test_a_separator_may_be_typed_in_a_shell(tmp_path: Path) -> None:
    """A newline in --separator may be typed as a backslash and an n, or as it is."""
    path = put(tmp_path / "a")
    assert find(path, separator=r"\n--\n").separator == "\n--\n"
    assert find(path, separator="\n\n").separator == "\n\n"


def test_an_empty_separator_is_refused(tmp_path: Path) -> None:
    """An empty --separator is an error, because an empty text is at every place of a text."""
    with pytest.raises(UserError, match="separator is empty"):
        find(put(tmp_path / "a"), separator="")


# ---- errors, in one line each ----


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("shakespear", "shakespeare"), ("tails", "tales"), ("inptu.txt", "input.txt")],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    """An error about an unknown name suggests the nearest one, and lists the built-in corpora."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "input.txt")
    with pytest.raises(UserError) as caught:
        find(typed)
    message = str(caught.value)
    assert f"no such file or corpus: '{typed}'" in message
    assert f"did you mean {meant}?" in message
    assert all(name in message for name in corpora.NAMES)
    assert "\n" not in message


def test_an_unknown_path_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    """An error about an unknown path suggests a file of the same folder, if one is similar."""
    path = put(tmp_path / "input.txt")
    with pytest.raises(UserError, match=re.escape(f"did you mean {path}?")):
        find(tmp_path / "inptu.txt")
    with pytest.raises(UserError) as caught:
        find("qqqq")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("empty", "holds no files"),
        ("fifo", "neither a file nor a folder"),
        ("loop", "cannot read .*loop: .*symbolic links"),
        ("broken", "cannot read .*broken: No such file"),
        ("*.txt", "no such file or corpus"),
    ],
)
def test_an_entry_without_a_file_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    """An error of one line names the entry and says what is wrong."""
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=complaint) as caught:
        find(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_data_is_refused() -> None:
    """No entry at all, only a comma, and an empty word are errors."""
    for entries in ([], [","]):
        with pytest.raises(UserError, match="--data is empty"):
            find(*entries)
    with pytest.raises(UserError, match="no such file or corpus: ''"):
        find("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_folder_is_refused(tmp_path: Path) -> None:
    """A folder without permission to read it is an error, also within another folder."""
    put(tmp_path / "a.txt")
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(UserError, match=r"cannot read .*secret: Permission denied"):
        find(tmp_path)


# ---- synthetic corpora ----


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder where tales have been written."""
    folder = tmp_path_factory.mktemp("data")
    corpora.find(["tales"], folder)
    return folder


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the time of the last change of each file in a folder."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_tales_are_written_once(home: Path) -> None:
    """A second use finds the files of the first, and does not write them again."""
    before = stamps(home / "tales")
    assert set(before) == {"train.txt", "val.txt", "facts.json"}
    corpora.find(["tales"], home)
    assert stamps(home / "tales") == before


DAMAGED: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "an older version": (
        "facts.json",
        lambda data: data.replace(f'"version": {tales.VERSION}'.encode(), b'"version": 0'),
    ),
    "no facts": ("facts.json", lambda _: b"{}"),
    "facts of another type": ("facts.json", lambda _: b"[1]"),
    "facts.json is missing": ("facts.json", lambda _: None),
    "train.txt is cut": ("train.txt", lambda data: data[:-9]),
    "val.txt is missing": ("val.txt", lambda _: None),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_or_old_tales_are_written_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any damage, the next use restores the same bytes."""
    write = tales.write
    monkeypatch.setattr(tales, "write", lambda folder: write(folder, 20_000, 5_000))  # faster
    corpora.find(["tales"], tmp_path)
    intact = digests(tmp_path / "tales")
    file, change = DAMAGED[damage]
    path = tmp_path / "tales" / file
    old, new = path.read_bytes(), change(path.read_bytes())
    assert new != old
    path.unlink()
    if new is not None:
        path.write_bytes(new)
    corpora.find(["tales"], tmp_path)
    assert digests(tmp_path / "tales") == intact


def test_the_entropy_counts_the_bytes_that_the_loss_counts(home: Path) -> None:
    """The entropy is the bits of all tales of the validation tokens, divided by their bytes."""
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
    assert corpus.entropy == pytest.approx(exact / val.n_bytes, rel=1e-6)


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write few pictures, to save time."""
    write = pictures.write
    monkeypatch.setattr(pictures, "write", lambda folder: write(folder, 20_000, 5_000, 3_000))


def test_pictures_are_a_corpus_whose_entropy_is_known(tmp_path: Path, small_pictures: None) -> None:
    """The entropy of pictures is the bits of all validation pictures, divided by their bytes."""
    corpus = corpora.find(["pictures"], tmp_path)
    folder = tmp_path / "pictures"
    files = (folder / "train.txt",), (folder / "val.txt",)
    assert (corpus.name, corpus.train, corpus.val, corpus.separator) == ("pictures", *files, "\n\n")
    documents = files[1][0].read_text(encoding="ascii").removesuffix("\n").split("\n\n")
    bits = [pictures.check(document).bits for document in documents]
    exact = sum(bit for bit in bits if bit is not None)
    assert corpus.entropy == pytest.approx(exact / sum(map(len, documents)), rel=1e-6)


def test_damaged_held_out_pictures_are_written_again(tmp_path: Path, small_pictures: None) -> None:
    """The held-out file is checked, too, although no run trains on it."""
    corpora.find(["pictures"], tmp_path)
    held_out = tmp_path / "pictures" / "held_out.txt"
    held_out.write_text("damaged", encoding="ascii")
    corpora.find(["pictures"], tmp_path)
    assert len(held_out.read_text(encoding="ascii").split("\n\n")) > 5


@pytest.fixture
def tales_and_tunes(tmp_path: Path) -> Path:
    """Return a data folder with more than twice as much text of tales as of tunes."""
    for module, sizes in ((tales, (16_000, 3_000)), (tunes, (6_000, 2_000, 1_000))):
        module.write(tmp_path / module.__name__.rpartition(".")[2], *sizes)
    return tmp_path


def test_a_small_synthetic_corpus_is_repeated_beside_a_large_one(tales_and_tunes: Path) -> None:
    """A small corpus is read as many times as it fits into the largest; a name counts once."""
    both = corpora.find(["tales,tunes"], tales_and_tunes)
    assert both.name == "tales+tunes"
    names = ("tales", "tunes", "tunes")
    assert both.train == tuple(tales_and_tunes / name / "train.txt" for name in names)
    twice = corpora.find(["tunes", "tales", "tunes"], tales_and_tunes)
    assert twice.name == "tunes+tales" and twice.entropy == pytest.approx(both.entropy)


def test_the_entropy_of_several_corpora_has_the_bits_of_their_choice(tales_and_tunes: Path) -> None:
    """A model that knows all grammars still has to guess the corpus of the next document."""
    both = corpora.find(["tales,tunes"], tales_and_tunes)
    n_train = [len(path.read_text(encoding="ascii").split("\n\n")) for path in both.train]
    bits = n_bytes = 0.0
    n_of_each = n_train[0], sum(n_train[1:])
    for path, n, check in zip(both.val, n_of_each, (tales.check, tunes.check), strict=True):
        for document in path.read_text(encoding="ascii").removesuffix("\n").split("\n\n"):
            bits += (check(document).bits or math.nan) - math.log2(n / sum(n_train))
            n_bytes += len(document)
    assert both.entropy == pytest.approx(bits / n_bytes, rel=1e-6)


def test_a_synthetic_corpus_excludes_other_text_and_separators(tmp_path: Path) -> None:
    """The validation text, entropy and separator of tales are wrong for any other text."""
    path = put(tmp_path / "a")
    for data, separator in (
        (["tales", str(path)], None),
        ([f"{path},tales"], None),
        (["tales"], "#"),
        (["tunes", "tales"], "#"),
    ):
        with pytest.raises(
            UserError, match="can be combined with tales and pictures and tunes only"
        ):
            corpora.find(data, tmp_path, separator)


# ---- downloads ----


class Website(http.server.SimpleHTTPRequestHandler):
    """A website with a text, a longer one, a changed one and a cut one; it lists all requests."""

    text = b"To be, or not to be\n" * 50
    requests: list[str]

    def do_GET(self) -> None:
        """Answer a request; 404 for an unknown page."""
        self.requests.append(self.path)
        page = {
            "/text": self.text,
            "/longer": self.text + b"!",
            "/changed": self.text[:-1] + b"?",
            "/cut": self.text[:500],
        }.get(self.path)
        if page is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.text if self.path == "/cut" else page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def website() -> Iterator[str]:
    """Yield the address of a running `Website`."""
    Website.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Website) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


@pytest.fixture
def published(website: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the website's text take the place of tiny Shakespeare; return its address."""
    monkeypatch.setattr(builtin, "SHAKESPEARE_URL", f"{website}/text")
    monkeypatch.setattr(builtin, "SHAKESPEARE_BYTES", len(Website.text))
    monkeypatch.setattr(builtin, "SHAKESPEARE_SHA256", hashlib.sha256(Website.text).hexdigest())
    return website


def test_shakespeare_is_downloaded_once(tmp_path: Path, published: str) -> None:
    """The first use stores the file and nothing else; the second use asks no website."""
    path = tmp_path / "shakespeare" / "tinyshakespeare.txt"
    for _ in range(2):
        assert corpora.find(["shakespeare"], tmp_path) == Corpus("shakespeare", (path,))
        assert path.read_bytes() == Website.text
    assert Website.requests == ["/text"]
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_download_is_made_again(tmp_path: Path, published: str) -> None:
    """A file with other bytes is downloaded again."""
    path = put(tmp_path / "shakespeare" / "tinyshakespeare.txt", "To be, or n")
    corpora.find(["shakespeare"], tmp_path)
    assert path.read_bytes() == Website.text


def test_shakespeare_goes_with_other_files(tmp_path: Path, published: str) -> None:
    """The downloaded text can be trained on together with files of the user."""
    path = put(tmp_path / "a.txt")
    corpus = corpora.find([f"shakespeare,{path}"], tmp_path)
    assert corpus.name == "tinyshakespeare+1"
    assert corpus.train == (tmp_path / "shakespeare" / "tinyshakespeare.txt", path)


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("/longer", "is not the text that"),
        ("/changed", "is not the text that"),
        ("/cut", "is not the text that|cannot download"),
        ("/missing", "cannot download .*404"),
    ],
)
def test_a_wrong_download_is_refused_and_not_stored(
    tmp_path: Path,
    published: str,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    complaint: str,
) -> None:
    """A download that is changed, cut or missing is an error of one line, and no file is stored."""
    monkeypatch.setattr(builtin, "SHAKESPEARE_URL", published + page)
    by_hand = tmp_path / "shakespeare" / "tinyshakespeare.txt"
    with pytest.raises(UserError, match=complaint) as caught:
        corpora.find(["shakespeare"], tmp_path)
    assert f"save it as {by_hand}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_offline_the_error_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a connection, the error names the path for a file that a person copies by hand."""
    monkeypatch.setattr(builtin, "SHAKESPEARE_URL", "http://127.0.0.1:9/text")  # nobody answers
    with pytest.raises(UserError, match=r"go online, or .* save it as .*tinyshakespeare\.txt"):
        corpora.find(["shakespeare"], tmp_path)


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full, the download is an error and no file is left."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        corpora.find(["shakespeare"], tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.network
def test_the_published_text_is_the_one_that_is_expected(tmp_path: Path) -> None:
    """The published text has the size and the SHA-256 that the code expects."""
    assert corpora.find(["shakespeare"], tmp_path).train[0].stat().st_size == 1_115_394
