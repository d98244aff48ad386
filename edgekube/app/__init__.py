"""The assembly: the only package that knows all the others. `server.py` is an ordered list of components and what each is given.

    preflight.py  what the host must have, checked before anything is made        host.py       addresses of this machine
    paths.py      where everything lives                                           process.py    one loop, signals, readiness, exit codes
    server.py     the parts of a server, in the order they start                   removal.py    what uninstall takes away
    shutdown.py   the end of pods when the machine goes down                       checks/       everything `edgekube check` looks at
    setup.py      what an installer leaves: configuration, token, units            hostkinds.py  how a change of the host is undone
    hostchanges.py  what a node changes on its host, for the receipt               removalfiles.py  the end of an uninstall
    backup/       snapshots, and how one becomes the state again                   upgrade/      another version, on trial
"""
