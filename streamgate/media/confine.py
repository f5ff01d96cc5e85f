"""How a media child shuts itself in before it looks at a film: Linux Landlock, namespaces, limits; by ctypes alone.

Everything here only takes rights away from the calling process and cannot be undone by it. Sources: landlock(7),
prctl(2), unshare(2), capabilities(7), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522

_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_LANDLOCK_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_FILE = 1 << 5
_MAKE_REG = 1 << 8
_TRUNCATE = 1 << 14

_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK_RIGHTS = 0b11
_SCOPES = 0b11

_MAX_FILE = 4 << 30
_MAX_OPEN_FILES = 64


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; exits at once when ``parent`` is already gone."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def forbid_new_privileges() -> bool:
    """No program run from here gains rights (set-user-id, file capabilities), and nobody may trace this process."""
    libc = _libc()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return bool(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def leave_network() -> bool:
    """Move into an empty network namespace (not even a loopback that is up), where the kernel permits it."""
    libc = _libc()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    # Without a mapping of its own id the process could not create files any more (EOVERFLOW).
    for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        try:
            Path("/proc/self", name).write_text(line)
        except OSError:
            continue
    return True


def drop_capabilities() -> bool:
    """Give up every capability, also those that root would get back by running a program."""
    libc = _libc()
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("=II", _CAPABILITY_VERSION_3, 0)
    return bool(libc.capset(header, struct.pack("=6I", 0, 0, 0, 0, 0, 0)) == 0)


def limit(memory: int, cpu_s: int) -> bool:
    """Bound address space (bytes), processor time (seconds), open files, file sizes; no core dumps."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, _MAX_FILE),
    ):
        _, hard = resource.getrlimit(kind)
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))
    return True


def landlock_version() -> int:
    """The Landlock ABI of this kernel; 0 when it has none."""
    version = _libc().syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    return max(0, int(version))


def shut_filesystem(*, readable: str | None, writable: str | None) -> bool:
    """Leave this process one file to read and one folder to work in, and no TCP, no foreign sockets, no foreign signals.

    False when the kernel has no Landlock. Needs `forbid_new_privileges` first.
    """
    version = landlock_version()
    if version == 0:
        return False
    libc = _libc()
    rights = _RIGHTS_BY_VERSION[min(version, 5)]
    attributes = struct.pack("=QQQ", rights, _NETWORK_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = int(libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    if ruleset < 0:
        return False
    try:
        if readable is not None:
            _allow(libc, ruleset, readable, _READ_FILE)
        if writable is not None:
            work = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
            _allow(libc, ruleset, writable, work & rights)
        return bool(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, handle)
        if libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock refused a rule for {path}")
    finally:
        os.close(handle)


def close_inherited(keep: set[int]) -> None:
    """Close every descriptor above standard error that is not in ``keep``."""
    below = 3
    for handle in sorted(keep):
        if handle >= below:
            os.closerange(below, handle)
            below = handle + 1
    os.closerange(below, 1 << 16)
