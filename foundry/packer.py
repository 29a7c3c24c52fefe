"""Packer, through packer.py: its output streamed as it comes, its process in our hands.

packer.py starts Packer by itself and waits for it, so it runs in a Python process of its own, which run.py can log
and end like any other command (`python -m foundry.packer`).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from packerpy import PackerExecutable

from foundry import files, run
from foundry.errors import CommandFailed, FoundryError, GuestError
from foundry.machine import wait
from foundry.workspace import Workspace

PLUGINS_SINCE = (1, 7)


def version() -> tuple[int, ...]:
    """The version of the host's Packer. Raises ToolMissing."""
    output = run.capture([run.find("packer", "packer"), "version"], name="packer-version", env=_environment())
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", output)
    if not found:
        raise FoundryError(f"packer: `packer version` answered {output!r}", hint="is this HashiCorp's Packer?")
    return tuple(int(n) for n in found.groups())


def build(
    workspace: Workspace,
    scratch: Path,
    variables: Mapping[str, str],
    console: Path,
    *,
    source: str,
    space: Path | None = None,
) -> None:
    """Run `packer build` with variables; scratch is a folder of ours for its templates and cache.

    console: the file that the guest's console goes to. source: which of the template's. space: the network namespace
    that Packer runs in.
    Raises CommandFailed with Packer's last lines, GuestError with the console's where the guest never came up.
    """
    try:
        _call("build", workspace, scratch, variables, source=source, space=space)
    except CommandFailed as error:
        if "waiting for SSH" not in (error.details or ""):
            raise
        tail = wait.console_tail(console) or "(nothing so far)"
        raise GuestError(
            f"packer: the guest did not answer ssh within {variables['boot_timeout']}",
            details="the serial console's last lines:\n" + tail,
            log=console,
            hint="raise build.boot_timeout_s in foundry.yml where the host is slow",
        ) from error


def validate(workspace: Workspace, scratch: Path) -> None:
    """Run `packer validate` over our templates with stand-in variables. Raises CommandFailed."""
    stand_in = scratch / "file"
    files.write(stand_in, "")
    names = re.findall(r'variable "(\w+)" \{[^}]*\}', _text(workspace))
    numbers = {"cpus": "2", "memory": "2048", "boot_timeout": "5m"}
    key = scratch / "key"
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], name="ssh-keygen")
    paths = {n: str(stand_in) for n in names} | numbers | {"scripts": str(workspace.packer / "scripts")}
    paths["ssh_key"] = str(key)
    _call("validate", workspace, scratch, paths | {"output": str(scratch / "output")})


def _text(workspace: Workspace) -> str:
    return (workspace.packer / "variables.pkr.hcl").read_text(encoding="utf-8")


def _environment() -> dict[str, str]:
    return {"CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}


def _call(
    verb: str,
    workspace: Workspace,
    scratch: Path,
    variables: Mapping[str, str],
    *,
    source: str | None = None,
    space: Path | None = None,
) -> None:
    templates = scratch / "templates"
    templates.mkdir(parents=True, exist_ok=True)
    for path in workspace.packer.glob("*.pkr.hcl"):
        shutil.copyfile(path, templates / path.name)
    # Packer's sockets lie in TMPDIR, and a socket's path has at most 107 bytes: "." is short below a deep folder too.
    # Its crash.log goes to the current folder as well.
    environment = {**_environment(), "PACKER_CACHE_DIR": str(scratch / "cache"), "TMPDIR": "."}
    packer = run.find("packer", "packer")
    if version() >= PLUGINS_SINCE:
        for path in (workspace.packer / "current").glob("*.pkr.hcl"):
            shutil.copyfile(path, templates / path.name)
        run.run(
            [packer, "init", templates],
            cwd=scratch,
            env=environment,
            name="packer-init",
            what="packer: packer init",
            hint="install the QEMU plugin by hand: packer plugins install github.com/hashicorp/qemu",
        )
    request = json.dumps(
        {
            "packer": str(packer),
            "verb": verb,
            "templates": str(templates),
            "variables": dict(variables),
            "source": source,
        }
    )
    enter = [] if space is None else ["nsenter", f"--net={space}"]
    child = [*enter, sys.executable, "-m", "foundry.packer", request]
    run.run(
        run.contained(child),
        cwd=scratch,
        env={**environment, "PYTHONPATH": str(workspace.root)},
        name="packer",
        what=f"packer: packer {verb}",
    )


def _child(request: str) -> int:
    wanted = json.loads(request)
    packer = PackerExecutable(
        executable_path=wanted["packer"], machine_readable=False, config={"stdout": None, "stderr": None}
    )
    options: dict[str, object] = {"var": wanted["variables"]}
    if wanted["verb"] == "build":
        options |= {"color": "false", "timestamp_ui": True, "only": wanted["source"]}
    code, _, _ = packer.execute_cmd(wanted["verb"], wanted["templates"], **options)
    return int(code)


if __name__ == "__main__":
    raise SystemExit(_child(sys.argv[1]))
