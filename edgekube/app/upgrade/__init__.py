"""Another version of the program, on trial until it has shown that it works here; if it does not, all is as it was before.

    candidate.py  is the file a program for this machine, and which version?
    switch.py     the names of the program: the one in use, the one before, the one on trial
    state.py      what was decided, on the disk; and the copy of the state that a roll-back needs
    running.py    how edgekube runs here (a systemd unit, a background process), stopped and started the same way
    gate.py       what the new version must show: ready, its node too, the right version, for some seconds
    trial.py      the whole story: begin, judge, keep or go back; from any point after a crash

Who goes back when the machine loses power and boots into a version that does not work? Not that version. While the trial lasts the
installed path holds no program but a script of ten lines that starts two: the judge, which is the *old* program (`edgekube.previous
upgrade --resume`, which waits until nobody else judges), and the program on trial. Whatever starts edgekube - systemd, an init script,
a person - starts both. One rename begins the trial, one ends it. The unit files do not know of any of this.

    edgekube                    edgekube.next    edgekube.previous     a crash here
    old                         new, examined    -                     nothing has happened
    old                         new              old                   nothing has happened
    script                      new              old                   the next start judges; `upgrade` again judges at once
    new (kept) / old (gone back)                 old                   the next start tidies up, and completes a roll-back's data

Going back restores the database and the credentials as they were when the old version was stopped, whatever the new one did to them: what
was written in the seconds of the trial is lost, and told. Pods are not touched by any of it: they run on while edgekube does not.
"""
