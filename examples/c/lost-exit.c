/*
 * lost-exit: a FreeBSD kernel loses NOTE_EXIT of a process whose NOTE_FORK is pending.
 *
 *	cc -O2 -o lost-exit lost-exit.c && ./lost-exit		loses exits on 13.2 and 15.1
 *	./lost-exit -c						the control: without NOTE_FORK none is lost
 *
 * The tracker follows one process with NOTE_TRACK, NOTE_EXIT and NOTE_FORK.  That process forks up to -n children.  Each
 * child vforks once and ends 0 to 126 microseconds later, so that its exit meets the tracker's kevent(2) while that reads
 * the NOTE_FORK.  Every child and grandchild is dead before the tracked process ends, and every event is then read.
 *
 * Prints the processes that were announced (NOTE_CHILD) and never reported dead (NOTE_EXIT), and the repeated NOTE_CHILD.
 * Exit status: 0 no exit was lost, 1 one was, 2 the run failed.  It ends after -s seconds of forking, at the latest.
 *
 * The chance depends on how fast kevent(2) returns: give it two CPUs or more, and -s 600 on a fast machine.
 */
#include <sys/types.h>
#include <sys/event.h>
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define	PIDS	100000		/* PID_MAX is 99999 */
#define	CHILDREN 30000		/* two processes each: no pid comes twice */

static unsigned char open_lives[PIDS];	/* announced, and not reported dead */

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (t.tv_sec + t.tv_nsec / 1e9);
}

static void
child(int i)
{
	double end;
	pid_t pid;

	pid = vfork();
	if (pid == 0)
		_exit(0);
	end = now() + (i % 64) * 2e-6;
	while (now() < end)
		;
	_exit(pid < 0);
}

/* The tracked process: forks one child after the other, and reaps each. */
static void
root(int go, int children, int seconds)
{
	double end;
	pid_t pid;
	char byte;
	int i, status;

	if (read(go, &byte, 1) != 1)
		_exit(2);
	end = now() + seconds;
	for (i = 0; i < children && now() < end; i++) {
		pid = fork();
		if (pid == 0)
			child(i);
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
			_exit(2);
	}
	_exit(0);
}

int
main(int argc, char **argv)
{
	struct kevent change, events[64];
	struct timespec timeout = { 0, 100000000 };
	unsigned long announced, exits, lost, repeated;
	unsigned int notes;
	int children, ended, go[2], i, kq, n, option, pid, seconds, status;
	pid_t tracked;

	announced = exits = lost = repeated = 0;
	children = CHILDREN;
	ended = status = 0;
	notes = NOTE_TRACK | NOTE_EXIT | NOTE_FORK;
	seconds = 60;
	while ((option = getopt(argc, argv, "cn:s:")) != -1)
		switch (option) {
		case 'c':
			notes &= ~NOTE_FORK;
			break;
		case 'n':
			children = atoi(optarg);
			break;
		case 's':
			seconds = atoi(optarg);
			break;
		default:
			errx(2, "usage: lost-exit [-c] [-n children] [-s seconds]");
		}
	if (children < 1 || children > CHILDREN || seconds < 1 || seconds > 3600)
		errx(2, "-n is 1 to %d, -s is 1 to 3600", CHILDREN);

	if (pipe(go) < 0)
		err(2, "pipe");
	tracked = fork();
	if (tracked < 0)
		err(2, "fork");
	if (tracked == 0) {
		close(go[1]);
		root(go[0], children, seconds);
	}
	kq = kqueue();
	if (kq < 0)
		err(2, "kqueue");
	EV_SET(&change, tracked, EVFILT_PROC, EV_ADD, notes, 0, NULL);
	if (kevent(kq, &change, 1, NULL, 0, NULL) < 0)
		err(2, "kevent: EV_ADD");
	alarm(seconds + 60);
	if (write(go[1], "", 1) != 1)
		err(2, "write");

	/* Reads until the tracked process is reaped and nothing is queued any more. */
	for (;;) {
		n = kevent(kq, NULL, 0, events, 64, &timeout);
		if (n < 0 && errno != EINTR)
			err(2, "kevent");
		if (n == 0 && ended)
			break;
		if (n == 0 && waitpid(tracked, &status, WNOHANG) == tracked)
			ended = 1;
		for (i = 0; i < n; i++) {
			pid = (int)events[i].ident;
			if (events[i].fflags & NOTE_TRACKERR)
				errx(2, "NOTE_TRACKERR: the kernel is out of memory");
			if (events[i].fflags & NOTE_CHILD) {
				if (open_lives[pid])
					repeated++;
				else
					announced++;
				open_lives[pid] = 1;
			}
			if ((events[i].fflags & NOTE_EXIT) && pid != tracked) {
				exits++;
				open_lives[pid] = 0;
			}
		}
	}
	if (status != 0 || announced == 0)
		errx(2, "the tracked process failed, with wait status %d after %lu births", status, announced);

	for (pid = 0; pid < PIDS; pid++)
		if (open_lives[pid] && lost++ < 5)
			printf("no NOTE_EXIT for %d; kill(%d, 0): %s\n", pid, pid, kill(pid, 0) < 0 ? strerror(errno) : "alive");
	printf("asked for NOTE_TRACK NOTE_EXIT%s: announced %lu, exits %lu, lost %lu, duplicated %lu\n",
	    notes & NOTE_FORK ? " NOTE_FORK" : "", announced, exits, lost, repeated);
	return (lost > 0);
}
