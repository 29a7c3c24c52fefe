"""How the software got onto the node (traps 13 to 16 and 19)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def _files(folder: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*") if p.is_symlink() or p.is_file())


def test_patroni_comes_from_our_package(facts: dict[str, Any]) -> None:
    """Trap 13."""
    assert facts["commands"]["owner of patroni"]["out"].startswith("patroni-venv:")
    assert facts["commands"]["patroni version"]["rc"] == 0


def test_nothing_was_installed_beside_the_packages(pristine: Path) -> None:
    """Trap 13: pip writes below /usr/local."""
    # The one link is Debian's own, of base-files.
    assert _files(pristine / "usr/local") in ([], [str(pristine / "usr/local/man")])
    assert _files(pristine / "opt") == []


def test_venv_has_no_pip(facts: dict[str, Any]) -> None:
    """Trap 13."""
    assert facts["commands"]["pip"] == {"rc": 0, "out": "", "err": ""}


def test_psycopg_uses_the_distributions_libpq(facts: dict[str, Any]) -> None:
    """Trap 13: so that security updates of libpq and OpenSSL reach Patroni."""
    libraries = facts["commands"]["psycopg"]["out"]
    assert "libpq.so.5 => /" in libraries
    assert {"/lib/", "/usr/lib/"} & {
        line.split("=> ")[1].partition("x86_64")[0] for line in libraries.splitlines() if "libpq.so.5 =>" in line
    }
    assert "not found" not in libraries


def test_no_key_is_trusted_for_every_repository(pristine: Path) -> None:
    """Trap 14: Debian's own keys are those of the package debian-archive-keyring."""
    assert not (pristine / "etc/apt/trusted.gpg").exists()
    extra = [p for p in _files(pristine / "etc/apt/trusted.gpg.d") if not Path(p).name.startswith("debian-archive-")]
    assert extra == []


def _fields(stanza: str) -> dict[str, str]:
    rows = [line.partition(":") for line in stanza.splitlines() if line[:1].strip() and not line.startswith("#")]
    return {key.lower(): value.strip() for key, _, value in rows}


def test_repositories_are_public_and_signed(pristine: Path) -> None:
    """Traps 14 and 18: each names its key, none is the one that the image was built from."""
    folder = pristine / "etc/apt"
    lists = [folder / "sources.list", *folder.glob("sources.list.d/*.list")]
    lines = [line for path in lists if path.exists() for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if line.startswith("deb") and "signed-by=" not in line] == []
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("sources.list.d/*.sources")]
    stanzas = [s for text in texts for s in map(_fields, text.split("\n\n")) if "uris" in s]
    assert [s for s in stanzas if "signed-by" not in s] == []
    uris = [uri for s in stanzas for uri in s["uris"].split()]
    entries = [line.rpartition("]")[2].split() for line in lines if line.startswith("deb")]
    uris += [next(word for word in entry if "/" in word) for entry in entries]
    assert uris
    assert [u for u in uris if not u.startswith(("http://", "https://", "mirror+https://"))] == []
    assert [u for u in uris if "//localhost" in u or "//127." in u] == []


def test_no_cluster_was_made_at_installation(pristine: Path, within: Callable[[str], Path]) -> None:
    """Trap 15."""
    assert not (pristine / "var/lib/postgresql/15").exists() or _files(pristine / "var/lib/postgresql/15") == []
    assert not (pristine / "etc/postgresql/15").exists()
    names = [p.name for p in (pristine / "etc/postgresql-common/createcluster.d").glob("*.conf")]
    texts = [within(f"etc/postgresql-common/createcluster.d/{name}").read_text(encoding="utf-8") for name in names]
    assert any("create_main_cluster = false" in text for text in texts)


def test_postgresql_is_not_started_by_systemd(facts: dict[str, Any]) -> None:
    """Trap 15: Patroni alone starts it."""
    assert facts["units"]["postgresql.service"]["LoadState"] == "masked"
    clusters = facts["commands"]["clusters"]["out"].splitlines()
    assert [c for c in clusters if "main" in c and "/etc/postgresql/15/main" in c] == []


def test_unit_belongs_to_the_package(facts: dict[str, Any]) -> None:
    """Trap 16."""
    assert facts["commands"]["owner of unit"]["out"].startswith("patroni-node:")
    assert facts["units"]["patroni.service"]["FragmentPath"] in (
        "/usr/lib/systemd/system/patroni.service",
        "/lib/systemd/system/patroni.service",
    )
    assert "/etc/" not in facts["units"]["patroni.service"]["DropInPaths"]
    assert facts["commands"]["owner of root's consul"]["out"].startswith("patroni-node:")


def test_needrestart_leaves_the_database_alone(within: Callable[[str], Path]) -> None:
    """Trap 19: an automatic restart would be an unplanned failover."""
    text = within("etc/needrestart/conf.d/patroni-node.conf").read_text(encoding="utf-8")
    for name in ("patroni", "postgresql", "consul"):
        assert f"{{override_rc}}{{qr(^{name})}} = 0;" in text


def test_packages_are_the_manifests(facts: dict[str, Any], node: dict[str, Any]) -> None:
    """What the manifest says is in the image is what dpkg has installed."""
    recorded = node["manifest"].get("packages", [])
    if isinstance(recorded, dict):
        recorded = [{"name": k, **(v if isinstance(v, dict) else {"version": v})} for k, v in recorded.items()]
    told = {f"{row['name']} {row['version']}" for row in recorded}
    installed = {" ".join(line.split()[:2]) for line in facts["commands"]["packages"]["out"].splitlines()}
    assert told <= installed
