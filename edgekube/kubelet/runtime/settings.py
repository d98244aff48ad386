"""What the runtime is configured with, the paths that follow from it, and the three configuration files of our own podman (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What containerd gives a container by default; podman's own list is shorter, which would break images that work elsewhere.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
    "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """Where things are. Several nodes on one machine differ in all of these."""

    data_dir: Path
    run_dir: Path
    log_dir: Path = Path("/var/log/pods")
    link_dir: Path = Path("/var/log/containers")
    cgroup_root: str = "kubepods"
    socket: str = ""  # a foreign podman service to use instead of our own
    registries: Path | None = None  # registries.yaml, which need not be there
    log_max_size: int = 10 << 20
    log_max_files: int = 5

    @property
    def storage(self) -> Path:
        return self.data_dir / "storage"

    @property
    def scratch(self) -> Path:
        """Where podman unpacks what it pulls: on the disk, since the run directory is memory."""
        return self.data_dir / "scratch"

    @property
    def home(self) -> Path:
        """Everything of podman that dies with the machine's memory."""
        return self.run_dir / "podman"

    @property
    def userdata(self) -> Path:
        """What podman notes about each container: its environment, too (see userdata.py)."""
        return self.home / "userdata"

    @property
    def user_home(self) -> Path:
        """HOME of podman."""
        return self.home / "home"

    @property
    def certs(self) -> Path:
        """Where podman looks for certificates of registries, before the host's own folders."""
        return self.user_home / ".config" / "containers" / "certs.d"

    @property
    def volumes(self) -> Path:
        """One folder per pod for its volumes: shared as well, so that what the kubelet mounts there reaches podman's mount namespace."""
        return self.data_dir / "pods"

    @property
    def pods(self) -> Path:
        """One folder per sandbox, on a shared mount."""
        return self.run_dir / "pods"

    @property
    def service_socket(self) -> Path:
        return Path(self.socket) if self.socket else self.home / "podman.sock"


def _quoted(items: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"


def containers_conf(config: RuntimeConfig, *, runtime: str, nofile: int, nproc: int) -> str:
    """[containers] and [engine]: run-time state on tmpfs, files instead of a journal, cgroups as we say."""
    home = config.home
    return "\n".join((
        "[containers]",
        f"default_capabilities = {_quoted(CAPABILITIES)}",
        f'default_ulimits = ["nofile={nofile}:{nofile}", "nproc={nproc}:{nproc}"]',
        f'env = ["PATH={PATH}"]',
        "http_proxy = false",
        "pids_limit = 0",
        'log_driver = "k8s-file"',
        "[engine]",
        f'runtime = "{runtime}"',
        'cgroup_manager = "cgroupfs"',
        'events_logger = "file"',
        "exit_command_delay = 5",
        f'static_dir = "{home}/static"',
        f'tmp_dir = "{home}/libpod"',
        f'volume_path = "{config.storage}/volumes"',
        f'image_copy_tmp_dir = "{config.scratch}"',
        'image_default_transport = "docker://"',
        "[network]",
        f'network_config_dir = "{home}/networks"',
        "",
    ))  # fmt: skip


def storage_conf(config: RuntimeConfig) -> str:
    return f'[storage]\ndriver = "overlay"\ngraphroot = "{config.storage}"\nrunroot = "{config.home}/run"\n'


def registries_conf() -> str:
    """Short names are expanded by us, so no search list; mirrors are asked by us (pulls.py)."""
    return 'unqualified-search-registries = []\nshort-name-mode = "disabled"\n'
