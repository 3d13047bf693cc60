/*
 * Which processes use EVFILT_PROC: what they register, and how many events of it they get. It asks no process and no kqueue:
 * on 15.1 whoever reads kern.proc.kq makes the kernel lose events of the process that is looked at.
 *
 * Needs   root, the dtraceall modules, and a kernel whose kqueue_register and kevent_copyout fbt can see.
 * Run     dtrace -s consumers.d PID; PID is a process to be left out. SIGINT or SIGTERM ends it.
 * Prints  B when it begins. At its end T, and sums that the kernel made in between:
 *         U pid, fflags (%x), registrations with them, name of the process
 *         G pid, events of EVFILT_PROC that it got, name of the process
 * Tried   on no running kernel. Its probes and their arguments are those of consumer.d, which was.
 */
#pragma D option quiet
#pragma D option switchrate=10hz
#pragma D option bufsize=1m

BEGIN
{
	printf("B %d %d\n", timestamp, walltimestamp);
}

/* arg2 is NULL if the kernel registers the knote of a child (knote_fork). -5 is EVFILT_PROC, 1 is EV_ADD. */
fbt::kqueue_register:entry
/pid != $1 && arg2 != 0 && ((struct kevent *)arg1)->filter == -5 && (((struct kevent *)arg1)->flags & 1) != 0/
{
	@registered[pid, ((struct kevent *)arg1)->fflags, execname] = count();
}

/* At most eight events a call (KQ_NEVENTS); beyond the count lies the kernel's stack. */
fbt::*kevent*_copyout:entry
/pid != $1/
{
	this->k = (struct kevent *)arg1;
	this->n = (int)arg2;
	@received[pid, execname] = sum(
	    (this->n > 0 ? this->k[0].filter == -5 : 0) + (this->n > 1 ? this->k[1].filter == -5 : 0) +
	    (this->n > 2 ? this->k[2].filter == -5 : 0) + (this->n > 3 ? this->k[3].filter == -5 : 0) +
	    (this->n > 4 ? this->k[4].filter == -5 : 0) + (this->n > 5 ? this->k[5].filter == -5 : 0) +
	    (this->n > 6 ? this->k[6].filter == -5 : 0) + (this->n > 7 ? this->k[7].filter == -5 : 0));
}

END
{
	printf("T %d %d\n", timestamp, walltimestamp);
	printa("U %d %x %@d %s\n", @registered);
	printa("G %d %@d %s\n", @received);
}
