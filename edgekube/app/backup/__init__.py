"""Snapshots: the whole state of a server in one file, and back.

    content.py   what is in one: rows of the store, the credentials, manifests; as a stream of entries
    folder.py    where they are kept: names, list, prune
    save.py      one is made: of a running store, or of a database that nobody has open
    restore.py   one becomes the state of this machine
    exchange.py  several files and folders replaced as one step, whatever is interrupted
    schedule.py  the component that makes them by itself, and the API's door for `edgekube snapshot save`
"""
