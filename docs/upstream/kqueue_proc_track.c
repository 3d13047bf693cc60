/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * Copyright (c) 2026 The kqproc_exporter authors
 */

#include <sys/param.h>
#include <sys/event.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <atf-c.h>

#define	PIDS		100000	/* PID_MAX is 99999. */
#define	GENERATIONS	10

/*
 * Each test forks a process behind a pipe, registers it with NOTE_TRACK, lets
 * it run, and compares what kevent(2) delivered with the processes that are
 * known to have been forked and to have ended.
 */

/* What one run saw of the descendants of the tracked process. */
struct seen {
	unsigned long	announced;	/* processes with NOTE_CHILD */
	unsigned long	repeated;	/* NOTE_CHILD for one that is alive */
	unsigned long	exited;		/* processes with NOTE_EXIT */
	unsigned char	alive[PIDS];	/* announced, and no NOTE_EXIT yet */
};

static struct seen seen;

/*
 * Forks a process that waits for a byte, registers it, and lets it run
 * body(arg).  Returns its pid and its kqueue.
 */
static pid_t
track(void (*body)(int), int arg, unsigned int notes, int *kq)
{
	struct kevent kev;
	pid_t pid;
	char byte;
	int go[2];

	ATF_REQUIRE(pipe(go) == 0);
	pid = fork();
	ATF_REQUIRE(pid != -1);
	if (pid == 0) {
		if (read(go[0], &byte, 1) != 1)
			_exit(1);
		body(arg);
		_exit(0);
	}
	*kq = kqueue();
	ATF_REQUIRE(*kq != -1);
	EV_SET(&kev, pid, EVFILT_PROC, EV_ADD, notes, 0, NULL);
	ATF_REQUIRE(kevent(*kq, &kev, 1, NULL, 0, NULL) == 0);
	ATF_REQUIRE(write(go[1], "", 1) == 1);
	close(go[0]);
	close(go[1]);
	return (pid);
}

/* Reads at most one batch of events; returns how many there were. */
static int
read_events(int kq, pid_t root, const struct timespec *timeout)
{
	struct kevent kev[64];
	int i, n;

	n = kevent(kq, NULL, 0, kev, nitems(kev), timeout);
	ATF_REQUIRE(n != -1);
	for (i = 0; i < n; i++) {
		ATF_REQUIRE_EQ(0, kev[i].fflags & NOTE_TRACKERR);
		if ((kev[i].fflags & NOTE_CHILD) != 0) {
			if (seen.alive[kev[i].ident])
				seen.repeated++;
			else
				seen.announced++;
			seen.alive[kev[i].ident] = 1;
		}
		if ((kev[i].fflags & NOTE_EXIT) != 0 &&
		    (pid_t)kev[i].ident != root) {
			seen.exited++;
			seen.alive[kev[i].ident] = 0;
		}
	}
	return (n);
}

/* Reads until the tracked process is reaped and nothing is queued. */
static void
read_all(int kq, pid_t root)
{
	const struct timespec timeout = { 0, 100000000 };
	pid_t pid;
	int status;

	do {
		while (read_events(kq, root, &timeout) > 0)
			;
		pid = waitpid(root, &status, WNOHANG);
	} while (pid == 0);
	ATF_REQUIRE_EQ(root, pid);
	ATF_REQUIRE_EQ(0, status);
	while (read_events(kq, root, &timeout) > 0)
		;
}

static void
fork_and_exit_soon(int children)
{
	struct timespec end, now;
	pid_t pid;
	int i;

	for (i = 0; i < children; i++) {
		pid = fork();
		if (pid == 0) {
			clock_gettime(CLOCK_MONOTONIC, &end);
			end.tv_nsec += i % 64 * 2000;
			if (end.tv_nsec >= 1000000000) {
				end.tv_sec++;
				end.tv_nsec -= 1000000000;
			}
			if (vfork() == 0)
				_exit(0);
			do
				clock_gettime(CLOCK_MONOTONIC, &now);
			while (now.tv_sec < end.tv_sec ||
			    (now.tv_sec == end.tv_sec &&
			    now.tv_nsec < end.tv_nsec));
			_exit(0);
		}
		if (pid == -1 || waitpid(pid, NULL, 0) != pid)
			_exit(1);
	}
}

ATF_TC(exit_with_fork_pending);
ATF_TC_HEAD(exit_with_fork_pending, tc)
{
	atf_tc_set_md_var(tc, "descr",
	    "NOTE_EXIT is delivered when NOTE_FORK of the same process is "
	    "being read as it exits");
	atf_tc_set_md_var(tc, "timeout", "600");
}
ATF_TC_BODY(exit_with_fork_pending, tc)
{
	pid_t root;
	int kq;

	root = track(fork_and_exit_soon, 30000,
	    NOTE_TRACK | NOTE_EXIT | NOTE_FORK, &kq);
	read_all(kq, root);
	ATF_CHECK_EQ(60000, seen.announced);
	ATF_CHECK_EQ_MSG(seen.announced, seen.exited,
	    "%lu of %lu processes have no NOTE_EXIT",
	    seen.announced - seen.exited, seen.announced);
}

static void
fork_chain(int generations)
{
	pid_t pid;

	for (; generations > 0; generations--) {
		pid = fork();
		if (pid == 0)
			continue;
		if (pid == -1 || waitpid(pid, NULL, 0) != pid)
			_exit(1);
		return;
	}
}

ATF_TC(child_once);
ATF_TC_HEAD(child_once, tc)
{
	atf_tc_set_md_var(tc, "descr",
	    "NOTE_CHILD comes once for each process, also where its parent's "
	    "has not been read");
}
ATF_TC_BODY(child_once, tc)
{
	pid_t root;
	int kq, status;

	root = track(fork_chain, GENERATIONS, NOTE_TRACK | NOTE_EXIT, &kq);
	ATF_REQUIRE_EQ(root, waitpid(root, &status, 0));
	ATF_REQUIRE_EQ(0, status);
	while (read_events(kq, root, &(struct timespec){ 0, 0 }) > 0)
		;
	ATF_CHECK_EQ(GENERATIONS, seen.announced);
	ATF_CHECK_EQ(GENERATIONS, seen.exited);
	ATF_CHECK_EQ_MSG(0, seen.repeated,
	    "%lu repeated NOTE_CHILD for %lu processes", seen.repeated,
	    seen.announced);
}

static void
fork_and_exit(int children)
{
	pid_t pid;
	int i;

	for (i = 0; i < children; i++) {
		pid = fork();
		if (pid == 0)
			_exit(0);
		if (pid == -1 || waitpid(pid, NULL, 0) != pid)
			_exit(1);
	}
}

/* Reads kern.proc.kq of its parent until it is killed. */
static void
look_at_parent(atomic_ulong *reads)
{
	static char knotes[1 << 20];
	size_t length, names;
	int mib[5];

	names = 4;
	if (sysctlnametomib("kern.proc.kq", mib, &names) != 0)
		_exit(1);
	mib[names] = getppid();
	for (;;) {
		length = sizeof(knotes);
		if (sysctl(mib, names + 1, knotes, &length, NULL, 0) == 0)
			atomic_fetch_add(reads, 1);
	}
}

ATF_TC(events_while_kq_is_read);
ATF_TC_HEAD(events_while_kq_is_read, tc)
{
	atf_tc_set_md_var(tc, "descr",
	    "No event is lost while the sysctl kern.proc.kq is read");
}
ATF_TC_BODY(events_while_kq_is_read, tc)
{
	atomic_ulong *reads;
	pid_t reader, root;
	size_t names;
	int kq, mib[4];

	names = nitems(mib);
	if (sysctlnametomib("kern.proc.kq", mib, &names) != 0)
		atf_tc_skip("this kernel has no kern.proc.kq");
	reads = mmap(NULL, sizeof(*reads), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANON, -1, 0);
	ATF_REQUIRE(reads != MAP_FAILED);
	root = track(fork_and_exit, 4000, NOTE_TRACK | NOTE_EXIT, &kq);
	reader = fork();
	ATF_REQUIRE(reader != -1);
	if (reader == 0)
		look_at_parent(reads);
	read_all(kq, root);
	ATF_REQUIRE(kill(reader, SIGKILL) == 0);
	ATF_REQUIRE_EQ(reader, waitpid(reader, NULL, 0));
	while (read_events(kq, root, &(struct timespec){ 0, 0 }) > 0)
		;
	ATF_REQUIRE(atomic_load(reads) > 0);
	ATF_CHECK_EQ_MSG(4000, seen.announced,
	    "%lu of 4000 processes have no NOTE_CHILD",
	    4000 - seen.announced);
	ATF_CHECK_EQ_MSG(seen.announced, seen.exited,
	    "%lu of %lu processes have no NOTE_EXIT",
	    seen.announced - seen.exited, seen.announced);
}

ATF_TP_ADD_TCS(tp)
{
	ATF_TP_ADD_TC(tp, exit_with_fork_pending);
	ATF_TP_ADD_TC(tp, child_once);
	ATF_TP_ADD_TC(tp, events_while_kq_is_read);

	return (atf_no_error());
}
