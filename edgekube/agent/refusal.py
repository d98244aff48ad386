"""Why a machine is no node: each is one line for a person, and the end of the process."""


class JoinRefused(RuntimeError):
    """This machine does not become a node like this: what is wrong, and what to do."""


class IdentityDamaged(RuntimeError):
    """The identity of this node can not be read; the message names the file."""
