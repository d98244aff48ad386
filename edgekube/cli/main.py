"""Which command, with which settings. COMMANDS is the one list."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from edgekube import config


class Command(NamedTuple):
    """A command: its module below edgekube.cli has `main(settings, arguments) -> int` and, if it has own arguments, `arguments(parser)`."""

    name: str
    text: str
    passes_all: bool = False  # everything after the name goes through untouched


COMMANDS = (
    Command("server", "run the control plane and this node"),
    Command("agent", "join a cluster and run this machine as one of its nodes"),
    Command("status", "whether the server on this machine is ready, and what is not"),
    Command("stop", "stop the server on this machine; pods keep running"),
    Command("check", "look whether this machine has what edgekube needs"),
    Command("kubeconfig", "print the admin kubeconfig"),
    Command("kubectl", "run kubectl as the cluster's administrator", passes_all=True),
    Command("token", "make, list and delete the tokens that let machines join"),
    Command("node", "list the nodes' keys, and revoke one"),
    Command("images", "bring images to this node without a registry, and list them"),
    Command("setup", "for installers: remember the flags and write the service's units"),
    Command("host", "what edgekube has changed on this host"),
    Command("snapshot", "save the whole state in one file, list such files, restore one"),
    Command("upgrade", "put another version in place; the one before comes back by itself if that does not work"),
    Command("uninstall", "remove edgekube, its pods and everything it made on this machine"),
    Command("version", "print the version"),
)

CONFIG_FILE = "/etc/edgekube/config.yaml"


class Failure(Exception):
    """A command failed; the message is the one line the user sees."""


def run(argv: Sequence[str]) -> int:
    """Parse and run; returns the exit code."""
    chosen = next((command for command in COMMANDS if argv and command.name == argv[0]), None)
    try:
        if chosen is not None and chosen.passes_all:
            return int(_module(chosen).main(_settings({}), list(argv[1:])))
        arguments = _parser(chosen).parse_args(argv)
        if chosen is None:
            raise Failure("no command was given")
        return int(_module(chosen).main(_settings(vars(arguments)), arguments))
    except (Failure, config.ConfigError) as error:
        print(f"edgekube: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130


def _module(command: Command) -> Any:
    return importlib.import_module(f"edgekube.cli.{command.name}")


def _parser(chosen: Command | None) -> argparse.ArgumentParser:
    """Only the chosen command's module is imported: the arguments of the others are not needed."""
    parser = argparse.ArgumentParser(prog="edgekube", description="Kubernetes in one process, for small Linux hosts.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.text, description=command.text, argument_default=argparse.SUPPRESS)
        sub.add_argument("--config", metavar="PATH", help=f"configuration file (default {CONFIG_FILE})")
        add_settings(sub, everything=command.name in _TAKE_ALL, role=command.name if command.name in ROLES else "")
        if command is chosen and (add := getattr(_module(command), "arguments", None)) is not None:
            add(sub)
    return parser


_PORTS = ("https-port", "kubelet-port")
_EVERYWHERE = ("data-dir", "run-dir", "node-name", "write-kubeconfig")
ROLES = ("server", "agent")
_TAKE_ALL = (*ROLES, "status", "check", "setup")  # an installer asks with the flags that it starts the server with


def add_settings(parser: argparse.ArgumentParser, *, everything: bool = False, role: str = "", only: Sequence[str] = _EVERYWHERE) -> None:
    """The settings as flags: all of them, or `only` those by which an installation is found. Help names what a process of this `role`
    reads."""
    for spec in config.flags_of(config.Settings):
        key = config.key_of(spec.name)
        if not (everything or key in only):
            continue
        default = spec.default
        text = f"{spec.metadata['help']} (default {default})" if default not in ("", (), False) else spec.metadata["help"]
        shown = spec.metadata["role"] in ("", role) if role else key in (*_EVERYWHERE, *_PORTS, "disable-agent")
        if not shown:
            text = argparse.SUPPRESS
        if isinstance(default, bool):
            parser.add_argument(f"--{key}", nargs="?", const="true", metavar="BOOL", help=text)
        elif isinstance(default, tuple):
            parser.add_argument(f"--{key}", action="append", metavar="LIST", help=text)
        else:
            parser.add_argument(f"--{key}", metavar=type(default).__name__.upper().replace("POSIX", ""), help=text)


def settings_of(role: str, argv: Sequence[str], environ: Mapping[str, str]) -> config.Settings:
    """What a server or agent that was started like this has. Raises ConfigError, Failure."""
    try:
        arguments = _parser(next(command for command in COMMANDS if command.name == role)).parse_args([role, *argv])
    except SystemExit:
        raise Failure(f"it was started with flags that are not known here: {' '.join(argv)}") from None
    return _settings(vars(arguments), environ)


def _settings(arguments: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> config.Settings:
    flags = {config.key_of(name): value for name, value in arguments.items()}
    named = flags.get("config") or environ.get("EDGEKUBE_CONFIG")
    found = config.load(flags, environ=environ, file=_read_file(Path(named or CONFIG_FILE), required=bool(named)))
    return found if found.node_named else _with_kept_name(found)


def _with_kept_name(settings: config.Settings) -> config.Settings:
    """A server that was restored on another machine keeps the name of its node."""
    try:
        name = (settings.data_dir / config.NODE_NAME_FILE).read_text().strip()
    except OSError:
        return settings
    return replace(settings, node_name=name) if name else settings


def _read_file(path: Path, *, required: bool) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise Failure(f"the configuration file {path} does not exist") from None
        return {}
    except OSError as error:
        raise Failure(f"the configuration file {path} can not be read: {error.strerror}") from None
    import yaml

    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise Failure(f"the configuration file {path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise Failure(f"the configuration file {path} must be a mapping of settings")
    return found
