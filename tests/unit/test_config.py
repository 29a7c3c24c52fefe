"""foundry.yml: what is taken, where values come from, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from foundry import config
from foundry.errors import ConfigError

PROJECT = Path(__file__).parents[2]
IMAGE = "images: {debian-12: {}}\n"
SHA = "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9"


def write(folder: Path, text: str | bytes, patroni: str = "4.1.5") -> Path:
    (folder / "requirements").mkdir(exist_ok=True)
    (folder / "requirements/patroni.in").write_text(f"patroni[consul,etcd3,systemd]=={patroni}\n")
    (folder / "requirements/patroni.txt").write_text(f"patroni=={patroni} \\\n    --hash=sha256:0\n")
    path = folder / "foundry.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaints(path: Path, *overrides: config.Setting) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path, overrides)
    assert caught.value.code == 2
    assert caught.value.hint
    return f"{caught.value.brief}\n{caught.value.details or ''}"


def test_the_projects_own_file_is_valid() -> None:
    cfg = config.load(PROJECT / "foundry.yml")
    assert cfg.default_image == "debian-12"
    assert cfg.images["debian-12"].disk_size == 8 * 1024**3
    assert (cfg.consul.suite, cfg.consul.sha256) == ("bullseye", SHA)


def test_defaults_are_enough(tmp_path: Path) -> None:
    cfg = config.load(write(tmp_path, IMAGE + "build:\n"))
    assert cfg.model_dump() == config.load(write(tmp_path, IMAGE)).model_dump()
    assert cfg.archive.mirror is None
    assert cfg.patroni.version == "4.1.5"
    assert cfg.consul.version == "1.8.7+dfsg1-2+b3"


def test_nothing_changes_later(tmp_path: Path) -> None:
    cfg = config.load(write(tmp_path, IMAGE))
    with pytest.raises(ValidationError):
        cfg.build.cpus = 3  # type: ignore[misc]


BAD = {
    "empty": ("", "foundry.yml: is empty"),
    "only a comment": ("# nothing\n", "is empty"),
    "binary": (b"\x00\x01\x02\xff\xfe", "is not text in UTF-8"),
    "a control character": (b"images: \x07", "is not YAML"),
    "latin-1": (IMAGE.encode() + b"# caf\xe9\n", "foundry.yml:2: is not text in UTF-8"),
    "huge": (IMAGE + "# x\n" * 100_000, "larger than 256 KiB"),
    "a python object": ("images: !!python/object/apply:os.system [true]\n", "foundry.yml:1: images: the YAML tag"),
    "a local tag": ("images: !mine {}\n", "the YAML tag !mine is not used here"),
    "an alias": ("a: &a [x]\nb: *a\n", "anchors (&) and aliases (*) are not used here"),
    "broken": ("images: {debian-12: {}\nbuild: ]\n", "is not YAML"),
    "a tab": ("images:\n\tdebian-12: {}\n", "foundry.yml:2: is not YAML"),
    "two documents": (IMAGE + "---\n" + IMAGE, "is not YAML"),
    "a list": ("- images\n", "must be keys and values"),
    "a word": ("images\n", "must be keys and values"),
    "deep": ("images: " + "[" * 3000 + "]" * 3000, "nests too deep"),
    "a double key": (IMAGE + "build: {cpus: 1}\nbuild: {cpus: 2}\n", "foundry.yml:3: build: is there twice"),
    "a double leaf": (IMAGE + "build: {cpus: 1, cpus: 2}\n", "build.cpus: is there twice (first on line 2)"),
    "no images": ("build: {cpus: 1}\n", "images: is missing"),
    "null images": ("images:\n", "foundry.yml:1: images: must be keys and values, not nothing"),
    "empty images": ("images: {}\n", "images: must have at least one entry"),
    "image name": ("images: {Debian 12: {}}\n", "small letters, digits and hyphens"),
    "image name with a dot": ("images: {debian.12: {}}\n", "small letters, digits and hyphens"),
    "unknown section": ("imagse: {}\n" + IMAGE, "foundry.yml:1: imagse: unknown key; did you mean images?"),
    "unknown far from all": (IMAGE + "zzz: 1\n", "zzz: unknown key; here may stand: images, archive"),
    "unknown in a section": (IMAGE + "build:\n  cpu: 2\n", "foundry.yml:3: build.cpu: unknown key; did you mean cpus?"),
    "unknown in an image": (
        "images: {a: {disk_sise: 8GiB}}\n",
        "images.a.disk_sise: unknown key; did you mean disk_size?",
    ),
    "suite": ("images: {a: {suite: bookwurm}}\n", "must be 'bookworm', not 'bookwurm'; did you mean bookworm?"),
    "size without unit": ("images: {a: {disk_size: 8}}\n", "must be a size with its unit, such as 8GiB"),
    "size in another unit": ("images: {a: {disk_size: 8GB}}\n", "must be a size with its unit"),
    "negative size": ("images: {a: {disk_size: -8GiB}}\n", "must be a size with its unit"),
    "small disk": ("images: {a: {disk_size: 100MiB}}\n", "is too small; the least is 3GiB"),
    "large disk": ("images: {a: {disk_size: 900TiB}}\n", "is too large; the most is 16384GiB"),
    "formats as a word": ("images: {a: {formats: qcow2}}\n", "images.a.formats: must be a list, not 'qcow2'"),
    "unknown format": ("images: {a: {formats: [qcow3]}}\n", "did you mean qcow2?"),
    "no format": ("images: {a: {formats: []}}\n", "must have at least one entry"),
    "double format": ("images: {a: {formats: [raw, raw]}}\n", "names raw twice"),
    "package name": ("images: {a: {packages: ['x; rm']}}\n", "images.a.packages[0]: must be the name of a package"),
    "package as a number": ("images: {a: {packages: [1]}}\n", "must be a text, not 1; write it in quotes"),
    "Debian's patroni": ("images: {a: {packages: [patroni]}}\n", "conflicts with patroni-venv"),
    "exclude as a word": ("images: {a: {exclude: jit}}\n", "images.a.exclude: must be a list, not 'jit'"),
    "unknown group": (
        "images: {a: {exclude: [jti]}}\n",
        "images.a.exclude[0]: must be jit or a path that begins with /, not 'jti'",
    ),
    "a path that all need": (
        "images: {a: {exclude: [jit, /usr/bin/*]}}\n",
        "images.a.exclude[1]: must name a file or folder of /usr/share, lib, libexec, bin or sbin before any * or ?",
    ),
    "double exclusion": ("images: {a: {exclude: [jit, jit]}}\n", "names jit twice"),
    "mirror alone": (IMAGE + "archive: {mirror: 'http://a/debian'}\n", "needs archive.security_mirror"),
    "security alone": (IMAGE + "archive: {security_mirror: 'http://a/s'}\n", "needs archive.mirror beside it"),
    "mirror by ftp": (IMAGE + "archive: {mirror: 'ftp://a'}\n", "must be an http:// or https:// address"),
    "no main": (IMAGE + "archive: {components: [contrib]}\n", "must have main"),
    "pg version": (IMAGE + "postgresql: {version: 16}\n", "postgresql.version: must be 15, not 16"),
    "pg version as text": (IMAGE + "postgresql: {version: '15'}\n", "must be 15, not '15'"),
    "pgdg without uri": (IMAGE + "postgresql: {source: pgdg}\n", "postgresql.uri: is needed with source: pgdg"),
    "uri without pgdg": (IMAGE + "postgresql: {uri: 'https://a'}\n", "it goes with source: pgdg"),
    "pgdg by http": (IMAGE + "postgresql: {source: pgdg, uri: 'http://a'}\n", "must be an https:// address"),
    "no keyring": (IMAGE + "postgresql: {source: pgdg, uri: 'https://a', signed_by: no.gpg}\n", "there is no keyring"),
    "patroni's version as a number": (
        IMAGE + "patroni: {version: 4.1}\n",
        "must be a text, not 4.1; write it in quotes",
    ),
    "another patroni than locked": (IMAGE + "patroni: {version: '4.0.0'}\n", "requirements/patroni.txt has 4.1.5"),
    "other extras than locked": (IMAGE + "patroni: {extras: [consul]}\n", "requirements/patroni.in has"),
    "unknown extra": (IMAGE + "patroni: {extras: [consol]}\n", "did you mean consul?"),
    "consul's version alone": (IMAGE + "consul: {version: 1.9.0-1}\n", "a version of your own needs its own sha256"),
    "consul's sha256": (IMAGE + "consul: {sha256: abc}\n", "must be a sha256: 64 digits"),
    "consul from a file without path": (IMAGE + "consul: {source: file}\n", "consul.path: is needed with source: file"),
    "consul from no file": (IMAGE + "consul: {source: file, path: no.deb}\n", "there is no file"),
    "consul's path without file": (IMAGE + "consul: {path: a.deb}\n", "it goes with source: file"),
    "hashicorp with a pin": (IMAGE + f"consul: {{source: hashicorp, sha256: {SHA}}}\n", "source: debian or file"),
    "none with a version": (IMAGE + "consul: {source: none, version: 1.2.3}\n", "has no meaning with source: none"),
    "memory as text": (IMAGE + "build: {memory_mib: '2048'}\n", "must be a whole number, not '2048'"),
    "memory as truth": (IMAGE + "build: {memory_mib: yes}\n", "must be a whole number, not true"),
    "memory as a fraction": (IMAGE + "build: {memory_mib: 2.5}\n", "must be a whole number, not 2.5"),
    "no memory": (IMAGE + "build: {memory_mib: 0}\n", "is too small; the least is 512"),
    "no cpus": (IMAGE + "verify: {cpus: 0}\n", "verify.cpus: is too small"),
    "null cpus": (IMAGE + "verify: {cpus: }\n", "must be a whole number, not nothing"),
    "accelerator": (IMAGE + "build: {accelerator: kmv}\n", "did you mean kvm?"),
    "section as a number": (IMAGE + "verify: 3\n", "foundry.yml:2: verify: must be keys and values, not 3"),
    "image as a list": ("images: {a: [b]}\n", "images.a: must be keys and values, not a list"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_file(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in complaints(write(tmp_path, text))


def test_every_error_at_once_and_in_order(tmp_path: Path) -> None:
    text = "imags: {}\nimages: {a: {disk_size: 8}}\nbuild: {cpu: 1, memory_mib: x}\nconsul: {source: file}\n"
    lines = complaints(write(tmp_path, text)).splitlines()
    assert lines[0] == "foundry.yml has 5 errors"
    assert [line.split(": ")[1] for line in lines[1:]] == [
        "imags",
        "images.a.disk_size",
        "build.memory_mib",
        "build.cpu",
        "consul.path",
    ]


def test_a_bad_value_raises_no_second_complaint(tmp_path: Path) -> None:
    (tmp_path / "key.gpg").write_bytes(b"\x98\x33")
    text = IMAGE + "postgresql: {source: pgdk, uri: 'https://a', signed_by: key.gpg}\n"
    assert complaints(write(tmp_path, text)).count("postgresql") == 1


def test_no_file(tmp_path: Path) -> None:
    assert "cannot be read" in complaints(tmp_path / "foundry.yml")


def test_a_mismatch_with_the_lock_hints_at_the_task_and_can_be_put_off(tmp_path: Path) -> None:
    path = write(tmp_path, IMAGE, patroni="4.1.4")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert "./inv lock" in (caught.value.hint or "")
    assert config.load(path, locked=False).patroni.version == "4.1.5"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "consul.deb").touch()
    cfg = config.load(write(tmp_path, IMAGE + "consul: {source: file, path: consul.deb}\n"))
    assert cfg.consul.path == tmp_path / "consul.deb"
    assert cfg.consul.version is None


def test_explain_names_each_source(tmp_path: Path) -> None:
    path = write(tmp_path, IMAGE + "build:\n  cpus: 3\n")
    overrides = config.settings_of(["verify.cpus=4"], "build.memory_mib=4096 verify.cpus=9")
    rows = {row.key: (row.value, row.source) for row in config.explain(config.load(path, overrides))}
    assert rows["build.cpus"] == (3, "foundry.yml:3")
    assert rows["build.memory_mib"] == (4096, "environment")
    assert rows["verify.cpus"] == (4, "--set")
    assert rows["build.accelerator"] == ("auto", "default")
    assert rows["images.debian-12.formats"] == (["qcow2"], "default")


def test_an_override_may_be_a_list(tmp_path: Path) -> None:
    overrides = config.settings_of(["images.debian-12.packages=[htop, tmux]"])
    assert config.load(write(tmp_path, IMAGE), overrides).images["debian-12"].packages == ("htop", "tmux")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("build.cpu", "2", "--set: build.cpu: unknown key; did you mean cpus?"),
        ("build.cpus", "x", "--set: build.cpus: must be a whole number"),
        ("build.cpus.more", "1", "--set: build.cpus"),
        ("biuld", "{}", "--set: biuld: unknown key; did you mean build?"),
        ("build.cpus", "[", "is not YAML"),
    ],
)
def test_bad_override(tmp_path: Path, key: str, value: str, expected: str) -> None:
    assert expected in complaints(write(tmp_path, IMAGE + "build: {cpus: 2}\n"), config.Setting(key, value, "--set"))


@pytest.mark.parametrize(("texts", "environment"), [(["build.cpus"], ""), (["=3"], ""), ([], "'open"), ([], "x")])
def test_an_override_that_is_no_pair(texts: list[str], environment: str) -> None:
    with pytest.raises(ConfigError):
        config.settings_of(texts, environment)


def test_pick_image(tmp_path: Path) -> None:
    cfg = config.load(write(tmp_path, "images: {one: {}, two: {}}\n"))
    assert config.pick_image(cfg, None) == "one"
    assert config.pick_image(cfg, "two") == "two"
    with pytest.raises(ConfigError, match="did you mean two"):
        config.pick_image(cfg, "tow")
