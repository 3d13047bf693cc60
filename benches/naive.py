"""What an operator would write first: join both witnesses by pid, as they come. The same as naive.awk."""

import sys


def main():
    creates = exits = births = deaths = 0
    created, child, exited, exit_note = {}, {}, {}, {}
    with open(sys.argv[1], "rb") as lines:
        for line in lines:
            f = line.split()
            kind = f[0]
            if kind == b"C":
                creates += 1
                pid = f[3]
                if pid in child:
                    births += child.pop(pid) == f[4]
                else:
                    created[pid] = f[4]
            elif kind == b"X":
                exits += 1
                pid = f[3]
                if pid in exit_note:
                    deaths += exit_note.pop(pid) == f[6]
                else:
                    exited[pid] = f[6]
            elif kind == b"N":
                pid = f[1]
                if f[2] == b"CHILD":
                    if pid in created:
                        births += created.pop(pid) == f[3]
                    else:
                        child[pid] = f[3]
                elif f[2] == b"EXIT":
                    if pid in exited:
                        deaths += exited.pop(pid) == f[3]
                    else:
                        exit_note[pid] = f[3]
    print(creates, exits, births, deaths)


main()
