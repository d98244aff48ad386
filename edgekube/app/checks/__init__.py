"""Everything that `edgekube check` looks at besides what decides a start (app/preflight.py): one module per concern, pure judgements over
what was read, so that tests give them hosts that nobody has at hand.

    finding.py   what a check says: cause, proof, fix, and a remedy where it is safe      machine.py  memory, swap, name, architecture
    kernel.py    what the kernel can do or load                                           cgroups.py  controllers; the Raspberry Pi's case
    programs.py  versions of podman and its helpers                                       disk.py     file system, room, inodes, speed
    clock.py     is the time plausible, does anybody set it                               run.py      all of them, and the remedies

Looking changes nothing, except that asking the kernel for a feature may load its module, as using it would.
"""
