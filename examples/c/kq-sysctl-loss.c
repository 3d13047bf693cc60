/*
 * kq-sysctl-loss: on FreeBSD 15.1 a tracker loses processes while another process looks at its kqueue.
 *
 *	cc -O2 -o kq-sysctl-loss kq-sysctl-loss.c && ./kq-sysctl-loss	loses births and exits
 *	./kq-sysctl-loss -c						the control: unread, it loses none
 *
 * The tracker follows one process with NOTE_TRACK and NOTE_EXIT.  That process forks -n children that end at once.  Beside
 * them one process reads the sysctl kern.proc.kq of the tracker over and over, as `procstat kqueue PID` does once.
 *
 * Prints the children that were never announced (NOTE_CHILD), those that were announced and never reported dead
 * (NOTE_EXIT), and the repeated NOTE_CHILD.  Exit status: 0 nothing was lost, 1 something was, 2 the run failed, for
 * instance because the kernel has no kern.proc.kq.  It ends after -s seconds of forking, at the latest.
 */
#include <sys/types.h>
#include <sys/event.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>

#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define	PIDS	100000		/* PID_MAX is 99999 */
#define	CHILDREN 30000		/* no pid comes twice */

static struct shared {
	atomic_ulong	births;		/* forks that succeeded */
	atomic_ulong	reads;		/* of kern.proc.kq that succeeded */
} *shared;

static unsigned char open_lives[PIDS];	/* announced, and not reported dead */

/* The tracked process: forks one child after the other, and reaps each. */
static void
root(int go, int children, int seconds)
{
	time_t end;
	pid_t pid;
	char byte;
	int i;

	if (read(go, &byte, 1) != 1)
		_exit(2);
	end = time(NULL) + seconds;
	for (i = 0; i < children && time(NULL) < end; i++) {
		pid = fork();
		if (pid == 0)
			_exit(0);
		if (pid < 0)
			_exit(2);
		atomic_fetch_add(&shared->births, 1);
		if (waitpid(pid, NULL, 0) != pid)
			_exit(2);
	}
	_exit(0);
}

/* Reads kern.proc.kq of a process until it is killed. */
static void
look_at(pid_t tracker)
{
	static char knotes[1 << 20];
	size_t length, names;
	int mib[5];

	names = 4;
	if (sysctlnametomib("kern.proc.kq", mib, &names) < 0)
		_exit(2);
	mib[names] = tracker;
	for (;;) {
		length = sizeof(knotes);
		if (sysctl(mib, names + 1, knotes, &length, NULL, 0) == 0)
			atomic_fetch_add(&shared->reads, 1);
	}
}

int
main(int argc, char **argv)
{
	struct kevent change, events[64];
	struct timespec timeout = { 0, 100000000 };
	unsigned long announced, births, exits, lost_exits, repeated;
	size_t names;
	int children, control, ended, go[2], i, kq, mib[4], n, option, pid, seconds, status;
	pid_t reader, tracked;

	announced = exits = lost_exits = repeated = 0;
	children = 4000;
	control = ended = status = 0;
	reader = -1;
	seconds = 60;
	while ((option = getopt(argc, argv, "cn:s:")) != -1)
		switch (option) {
		case 'c':
			control = 1;
			break;
		case 'n':
			children = atoi(optarg);
			break;
		case 's':
			seconds = atoi(optarg);
			break;
		default:
			errx(2, "usage: kq-sysctl-loss [-c] [-n children] [-s seconds]");
		}
	if (children < 1 || children > CHILDREN || seconds < 1 || seconds > 3600)
		errx(2, "-n is 1 to %d, -s is 1 to 3600", CHILDREN);
	names = 4;
	if (sysctlnametomib("kern.proc.kq", mib, &names) < 0 && !control)
		err(2, "this kernel has no kern.proc.kq");

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
	if (shared == MAP_FAILED)
		err(2, "mmap");
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
	EV_SET(&change, tracked, EVFILT_PROC, EV_ADD, NOTE_TRACK | NOTE_EXIT, 0, NULL);
	if (kevent(kq, &change, 1, NULL, 0, NULL) < 0)
		err(2, "kevent: EV_ADD");
	if (!control) {
		reader = fork();
		if (reader < 0)
			err(2, "fork");
		if (reader == 0) {
			alarm(seconds + 60);
			look_at(getppid());
		}
	}
	alarm(seconds + 60);
	if (write(go[1], "", 1) != 1)
		err(2, "write");

	/* Reads until the tracked process is reaped, the reader is gone, and nothing is queued. */
	for (;;) {
		n = kevent(kq, NULL, 0, events, 64, &timeout);
		if (n < 0 && errno != EINTR)
			err(2, "kevent");
		if (n == 0 && ended)
			break;
		if (n == 0 && waitpid(tracked, &status, WNOHANG) == tracked) {
			ended = 1;
			if (reader > 0) {
				kill(reader, SIGKILL);
				waitpid(reader, NULL, 0);
			}
		}
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
	births = atomic_load(&shared->births);
	if (status != 0 || births == 0)
		errx(2, "the tracked process failed, with wait status %d after %lu births", status, births);
	if (!control && atomic_load(&shared->reads) == 0)
		errx(2, "kern.proc.kq of %d could not be read", (int)getpid());

	for (pid = 0; pid < PIDS; pid++)
		lost_exits += open_lives[pid];
	printf("kern.proc.kq read %lu times: births %lu, announced %lu, exits %lu, lost births %lu, lost exits %lu, duplicated %lu\n",
	    atomic_load(&shared->reads), births, announced, exits, births - announced, lost_exits, repeated);
	return (births > announced || lost_exits > 0);
}
