"""Models in several files: missing, truncated and extra data."""

import ggufs
import pytest
from ggufs import STRING, U16, gguf, pair

from lcp.errors import GgufError, ModelNotFound
from lcp.modelfile.header import read_header
from lcp.modelfile.model_files import OpenFile, local, open_model

ARCH = pair("general.architecture", STRING, "llama")
TENSORS = [("a", (32,), 0), ("b", (64, 2), ggufs.Q8_0_TENSOR), ("c", (32, 4), 0)]


def split(number, count, tensors=(), first=(), **options):
    """One part; its number counts from 1, the file's own from 0."""
    pairs = [
        *first,
        pair("split.no", U16, number - 1),
        pair("split.count", U16, count),
        pair("split.tensors.count", ggufs.I32, 3),
    ]
    return gguf(pairs, tensors, **options)


@pytest.fixture
def three(tmp_path):
    """The folder of a model in three parts, the first of them without tensors."""
    put(tmp_path, 1, split(1, 3, (), [ARCH]))
    put(tmp_path, 2, split(2, 3, TENSORS[:2]))
    put(tmp_path, 3, split(3, 3, TENSORS[2:]))
    return tmp_path


def put(folder, number, data, count=3):
    (folder / f"m-{number:05}-of-{count:05}.gguf").write_bytes(data)


def write(path, data):
    path.write_bytes(data)
    return path


def test_one_file(tmp_path):
    data = gguf([ARCH], TENSORS)
    model = local(write(tmp_path / "m.gguf", data))
    assert (model.name, model.path) == ("m.gguf", tmp_path / "m.gguf")
    assert (model.complete, model.missing, model.trailing, model.header_only) == (
        True,
        (),
        0,
        False,
    )
    assert model.size_present == len(data)
    assert [t.name for t in model.header.tensors] == ["a", "b", "c"]


def test_the_padding_after_the_last_tensor_may_be_missing(tmp_path):
    data = gguf([ARCH], [("a", (33,), 0)])
    model = local(write(tmp_path / "m.gguf", data[:-28]))
    assert model.complete
    assert not local(write(tmp_path / "n.gguf", data[:-29])).complete


def test_an_interrupted_download(tmp_path):
    data = gguf([ARCH], TENSORS)
    model = local(write(tmp_path / "m.gguf", data[:-40]))
    assert not model.complete
    assert (model.size_present, model.size_expected) == (len(data) - 40, len(data))
    assert not model.header_only


def test_only_a_header(tmp_path):
    model = local(write(tmp_path / "m.gguf", gguf([ARCH], TENSORS, data=False)))
    assert (model.complete, model.header_only) == (False, True)


def test_a_vocabulary_alone_is_complete(tmp_path):
    model = local(write(tmp_path / "m.gguf", gguf([ARCH], ())))
    assert (model.complete, model.header_only) == (True, False)


def test_unused_bytes_at_the_end(tmp_path):
    model = local(write(tmp_path / "m.gguf", gguf([ARCH], TENSORS) + bytes(12)))
    assert (model.complete, model.trailing) == (True, 12)


@pytest.mark.parametrize("given", [1, 2, 3])
def test_any_part_leads_to_the_whole_model(three, given):
    model = local(three / f"m-{given:05}-of-00003.gguf")
    assert model.name == "m-00001-of-00003.gguf"
    assert model.path == three / model.name
    assert model.header.values["general.architecture"] == "llama"
    assert [t.name for t in model.header.tensors] == ["a", "b", "c"]
    assert (model.complete, model.missing, len(model.parts)) == (True, (), 3)
    assert model.size_present == sum(p.stat().st_size for p in three.iterdir())
    # the real places of the tensors
    assert [t.offset for part in model.parts for t in part.header.tensors] == [0, 128, 0]


def test_the_joined_header_is_that_of_a_single_file(three):
    joined = local(three / "m-00001-of-00003.gguf").header
    data = ggufs.start(3, joined.n_keys) + joined.keys + joined.infos
    data += bytes(-len(data) % 32)
    single = gguf([ARCH], TENSORS, data=False)
    assert data == single
    again = read_header(lambda offset, n: data[offset : offset + n], None, "x")
    assert (again.tensors, again.data_size) == (joined.tensors, joined.data_size)
    assert "split.count" not in again.values


def test_missing_parts_are_named(three):
    (three / "m-00002-of-00003.gguf").unlink()
    model = local(three / "m-00003-of-00003.gguf")
    assert (model.missing, model.complete) == (("m-00002-of-00003.gguf",), False)
    assert [t.name for t in model.header.tensors] == ["c"]


def test_a_truncated_part(three):
    path = three / "m-00002-of-00003.gguf"
    path.write_bytes(path.read_bytes()[:-64])
    model = local(three / "m-00001-of-00003.gguf")
    assert (model.missing, model.complete) == ((), False)
    assert model.size_expected - model.size_present == 40  # the rest is padding


def test_a_missing_first_part_is_an_error(three):
    (three / "m-00001-of-00003.gguf").unlink()
    with pytest.raises(GgufError, match=r"00001-of-00003\.gguf, is missing"):
        local(three / "m-00002-of-00003.gguf")


def test_parts_of_different_models(three):
    put(three, 3, split(3, 3, (("c", (32,), 0), ("d", (32,), 0))))
    with pytest.raises(GgufError, match="have 4 tensors together and should have 3"):
        local(three / "m-00001-of-00003.gguf")


def test_a_renamed_first_part(tmp_path):
    model = local(write(tmp_path / "renamed.gguf", split(1, 3, (), [ARCH])))
    assert model.missing == ("renamed-00002-of-00003.gguf", "renamed-00003-of-00003.gguf")


def test_a_complete_model_with_the_name_of_a_part(tmp_path):
    model = local(write(tmp_path / "m-00002-of-00003.gguf", gguf([ARCH], TENSORS)))
    assert (model.name, model.complete, model.missing) == ("m-00002-of-00003.gguf", True, ())


def test_an_impossible_number_of_parts(tmp_path):
    path = write(tmp_path / "m.gguf", split(1, 65_535, (), [ARCH]))
    with pytest.raises(GgufError, match="65,535 parts"):
        local(path)


@pytest.mark.parametrize("order", "<>")
def test_parts_in_both_byte_orders(tmp_path, order):
    for number in (1, 2):
        pairs = [
            pair("split.no", U16, number - 1, order),
            pair("split.count", U16, 2, order),
        ]
        put(tmp_path, number, gguf(pairs, [(f"t{number}", (32,), 0)], order=order), count=2)
    header = local(tmp_path / "m-00001-of-00002.gguf").header
    infos, _ = ggufs.laid_out([("t1", (32,), 0), ("t2", (32,), 0)], order)
    assert header.infos == b"".join(infos)


# places


def test_a_model_that_is_not_on_this_computer(three):
    """On a server: parts are opened by name, and the size of some is not known."""
    opened = []

    def open(name):
        opened.append(name)
        if not (three / name).exists():
            raise ModelNotFound("404")
        data = (three / name).read_bytes()
        size = None if "00002" in name else len(data)
        return OpenFile(name, size, lambda offset, n: data[offset : offset + n])

    model = open_model("m-00003-of-00003.gguf", open)
    assert opened == [f"m-{n:05}-of-00003.gguf" for n in (3, 1, 2, 3)]
    assert (model.path, model.complete) == (None, True)
    (three / "m-00002-of-00003.gguf").unlink()
    assert open_model("m-00001-of-00003.gguf", open).missing == ("m-00002-of-00003.gguf",)


def test_a_remote_header_is_at_most_64_mib():
    head = ggufs.start(0, 1) + ggufs.text("tokenizer.x") + ggufs.struct.pack("<I", ggufs.ARRAY)
    head += ggufs.array(ggufs.U8, 70 << 20)
    source = OpenFile("m.gguf", 80 << 20, lambda offset, n: head[offset:] + bytes(n))
    with pytest.raises(GgufError, match=r"67\.1 MB"):
        open_model("m.gguf", lambda name: source)


def test_a_folder_names_its_models(tmp_path):
    with pytest.raises(GgufError, match=r"is a folder without a \.gguf file"):
        local(tmp_path)
    for i in range(10):
        (tmp_path / f"m{i}.gguf").touch()
    with pytest.raises(GgufError, match=r"Give one of its files: m0\.gguf, .*m7\.gguf and 2 more"):
        local(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelNotFound, match=r"There is no file .*x\.gguf\. Give the path"):
        local(tmp_path / "x.gguf")


def test_a_broken_link(tmp_path):
    (tmp_path / "x.gguf").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelNotFound, match="is a link"):
        local(tmp_path / "x.gguf")


def test_parts_are_found_through_links(three, tmp_path):
    """As in the Hub cache: names in one folder, contents in another."""
    links = tmp_path / "snapshot"
    links.mkdir()
    for n, path in enumerate(sorted(three.glob("*.gguf"))):
        (links / path.name).symlink_to(path.rename(tmp_path / f"blob{n}"))
    assert local(links / "m-00002-of-00003.gguf").complete


def test_an_unreadable_file(tmp_path):
    """An error that root gets, too, so that the test runs everywhere."""
    file = write(tmp_path / "m.gguf", gguf())
    for path, why in ((file / "m.gguf", "Not a directory"), (tmp_path / ("m" * 999), "too long")):
        with pytest.raises(GgufError, match=why):
            local(path)


def test_the_real_model(smollm2):
    model = local(smollm2)
    assert (model.complete, model.trailing) == (True, 0)
    assert len(model.header.tensors) == 272
    assert model.header.values["tokenizer.ggml.tokens"].count == 49_152
