/*
 * repeated-child: a FreeBSD kernel announces one child 2^generation times.
 *
 *	cc -O2 -o repeated-child repeated-child.c && ./repeated-child
 *
 * The tracker follows one process with NOTE_TRACK and NOTE_EXIT and does not read its kqueue.  That process forks a child,
 * the child forks the next, and so on, -d generations deep; each waits for its own child.  Then the tracker reads.  No
 * timing is involved: 13.2 and 15.1 announce generation g 2^(g-1) times, in every run.
 *
 * Prints NOTE_CHILD and NOTE_EXIT for each process.  Exit status: 0 one NOTE_CHILD and one NOTE_EXIT each, 1 more or
 * fewer, 2 the run failed.  It takes less than a second.
 */
#include <sys/types.h>
#include <sys/event.h>
#include <sys/wait.h>

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define	DEEPEST	12		/* 2^12 knotes for the last one */

/* One process of the chain, as its parent names it. */
struct member {
	int	generation;
	pid_t	pid;
};

/* The tracked process, and each process of the chain: forks the next, names it, and ends when it has ended. */
static void
root(int go, int names, int depth)
{
	struct member next;
	char byte;
	int status;

	if (read(go, &byte, 1) != 1)
		_exit(2);
	for (next.generation = 0; next.generation < depth; next.generation++) {
		next.pid = fork();
		if (next.pid < 0)
			_exit(2);
		if (next.pid == 0)
			continue;
		if (write(names, &next, sizeof(next)) != sizeof(next) || waitpid(next.pid, &status, 0) != next.pid)
			_exit(2);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
	}
	_exit(0);
}

int
main(int argc, char **argv)
{
	struct kevent change, events[64];
	struct timespec none = { 0, 0 };
	struct member member;
	unsigned long exits[DEEPEST], lost, notes[DEEPEST], repeated;
	int depth, g, go[2], i, kq, n, names[2], option, status;
	pid_t chain[DEEPEST], tracked;

	depth = 10;
	while ((option = getopt(argc, argv, "d:")) != -1) {
		if (option != 'd')
			errx(2, "usage: repeated-child [-d depth]");
		depth = atoi(optarg);
	}
	if (depth < 1 || depth > DEEPEST)
		errx(2, "-d is 1 to %d", DEEPEST);

	if (pipe(go) < 0 || pipe(names) < 0)
		err(2, "pipe");
	tracked = fork();
	if (tracked < 0)
		err(2, "fork");
	if (tracked == 0) {
		close(go[1]);
		root(go[0], names[1], depth);
	}
	kq = kqueue();
	if (kq < 0)
		err(2, "kqueue");
	EV_SET(&change, tracked, EVFILT_PROC, EV_ADD, NOTE_TRACK | NOTE_EXIT, 0, NULL);
	if (kevent(kq, &change, 1, NULL, 0, NULL) < 0)
		err(2, "kevent: EV_ADD");
	alarm(60);
	if (write(go[1], "", 1) != 1)
		err(2, "write");
	if (waitpid(tracked, &status, 0) != tracked || status != 0)
		errx(2, "the tracked process failed, with wait status %d", status);
	for (i = 0; i < depth; i++) {
		if (read(names[0], &member, sizeof(member)) != sizeof(member))
			err(2, "read");
		chain[member.generation] = member.pid;
		exits[i] = notes[i] = 0;
	}

	while ((n = kevent(kq, NULL, 0, events, 64, &none)) > 0)
		for (i = 0; i < n; i++)
			for (g = 0; g < depth; g++)
				if ((pid_t)events[i].ident == chain[g]) {
					notes[g] += (events[i].fflags & NOTE_CHILD) != 0;
					exits[g] += (events[i].fflags & NOTE_EXIT) != 0;
				}
	if (n < 0)
		err(2, "kevent");

	lost = repeated = 0;
	for (g = 0; g < depth; g++) {
		printf("generation %2d, pid %5d: NOTE_CHILD %4lu, NOTE_EXIT %lu\n", g + 1, chain[g], notes[g], exits[g]);
		lost += (notes[g] == 0) + (exits[g] == 0);
		repeated += (notes[g] > 0 ? notes[g] - 1 : 0) + (exits[g] > 0 ? exits[g] - 1 : 0);
	}
	printf("%d processes: lost %lu, duplicated %lu\n", depth, lost, repeated);
	return (lost > 0 || repeated > 0);
}
