/*
 * What kevent(2) gives to one process and what it registers, beside every fork and exit: a consumer of kqueue, seen by
 * DTrace alone. The process is not touched and needs no change.
 *
 * Needs   root, the dtraceall modules, and FreeBSD 11: struct proc has p_xexit and p_xsig, and struct thread has no td_sa,
 *         so it keeps the arguments of the system call itself.
 * Run     dtrace -s consumer-11.d PID > dtrace.txt 2> dtrace.err
 * Prints  B, T, C, X, A, a, N and M records, as wire.d defines them.
 * Tried   on no running kernel of that release. It differs from consumer.d in nothing else.
 *
 * Every clause on a probe costs every process of the host, even if its predicate is false: one clause a probe, and a
 * predicate of pids alone. For several consumers the exporter writes the predicate anew.
 */
#pragma D option quiet
#pragma D option switchrate=10hz
#pragma D option statusrate=10hz
#pragma D option bufsize=8m
#pragma D option dynvarsize=4m

BEGIN
{
	printf("B %d %d\n", timestamp, walltimestamp);
}

/* The child does not run yet (12.3 and later). Forks by the kernel itself are left out. */
proc:::create
/args[1]->p_pid != 0/
{
	printf("C %d %d %d %d %d %x\n", timestamp, cpu, args[0]->p_pid, args[1]->p_pid, args[0]->p_pptr->p_pid, args[2]);
}

/* The wait(2) status is final here, on every release. */
proc:::exit
{
	this->p = curthread->td_proc;
	printf("X %d %d %d %d %d %d\n", timestamp, cpu, pid, ppid, args[0],
	    ((this->p->p_xexit & 0xff) << 8) | this->p->p_xsig);
}

tick-10hz
{
	printf("T %d %d\n", timestamp, walltimestamp);
}

/* Consumers. */
syscall::*kevent:entry
/pid == $1/
{
	self->fd = (int)arg0;
	self->nevents = (int)arg4;
}

/* arg2 is NULL if the kernel registers the knote of a child (knote_fork): then the descriptor means nothing. */
fbt::kqueue_register:entry
/pid == $1/
{
	this->r = (struct kevent *)arg1;
	printf("A %d %d %d %d %d %p %d %d %x %x %p %d\n", timestamp, cpu, tid, arg2 != 0, self->fd, arg0,
	    this->r->ident, this->r->filter, this->r->flags, this->r->fflags, this->r->udata, pid);
}

fbt::kqueue_register:return
/pid == $1/
{
	printf("a %d %d %d %d %d\n", timestamp, cpu, tid, (int)arg1, pid);
}

/*
 * kevent_copyout, and kevent11_copyout, freebsd32_kevent_copyout and freebsd32_kevent11_copyout if the kernel has them.
 * They get at most eight events a call (KQ_NEVENTS), of the kernel's own layout. Beyond the count lies its stack: print 0.
 */
fbt::*kevent*_copyout:entry
/pid == $1/
{
	this->k = (struct kevent *)arg1;
	this->n = (int)arg2;
	printf("N %d %d %d %d %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d %d %x %x %d %d\n", timestamp, cpu, tid,
	    self->fd, this->n,
	    this->n > 0 ? this->k[0].ident : 0, this->n > 0 ? this->k[0].filter : 0, this->n > 0 ? this->k[0].flags : 0, this->n > 0 ? this->k[0].fflags : 0, this->n > 0 ? this->k[0].data : 0,
	    this->n > 1 ? this->k[1].ident : 0, this->n > 1 ? this->k[1].filter : 0, this->n > 1 ? this->k[1].flags : 0, this->n > 1 ? this->k[1].fflags : 0, this->n > 1 ? this->k[1].data : 0,
	    this->n > 2 ? this->k[2].ident : 0, this->n > 2 ? this->k[2].filter : 0, this->n > 2 ? this->k[2].flags : 0, this->n > 2 ? this->k[2].fflags : 0, this->n > 2 ? this->k[2].data : 0,
	    this->n > 3 ? this->k[3].ident : 0, this->n > 3 ? this->k[3].filter : 0, this->n > 3 ? this->k[3].flags : 0, this->n > 3 ? this->k[3].fflags : 0, this->n > 3 ? this->k[3].data : 0,
	    this->n > 4 ? this->k[4].ident : 0, this->n > 4 ? this->k[4].filter : 0, this->n > 4 ? this->k[4].flags : 0, this->n > 4 ? this->k[4].fflags : 0, this->n > 4 ? this->k[4].data : 0,
	    this->n > 5 ? this->k[5].ident : 0, this->n > 5 ? this->k[5].filter : 0, this->n > 5 ? this->k[5].flags : 0, this->n > 5 ? this->k[5].fflags : 0, this->n > 5 ? this->k[5].data : 0,
	    this->n > 6 ? this->k[6].ident : 0, this->n > 6 ? this->k[6].filter : 0, this->n > 6 ? this->k[6].flags : 0, this->n > 6 ? this->k[6].fflags : 0, this->n > 6 ? this->k[6].data : 0,
	    this->n > 7 ? this->k[7].ident : 0, this->n > 7 ? this->k[7].filter : 0, this->n > 7 ? this->k[7].flags : 0, this->n > 7 ? this->k[7].fflags : 0, this->n > 7 ? this->k[7].data : 0,
	    pid);
}

/* kevent, and what the 32-bit and FreeBSD 11 system calls are named if the kernel has them. */
syscall::*kevent:return
/pid == $1/
{
	printf("M %d %d %d %d %d %d %d %d\n", timestamp, cpu, tid, self->fd, self->nevents,
	    (int)arg1, errno, pid);
}
