/*
 * What kevent(2) gives to one process and what it registers, beside every fork and exit: a consumer of kqueue, seen by
 * DTrace alone. The process is not touched and needs no change.
 *
 * Needs   root, the dtraceall modules, and a kernel whose struct proc has p_xexit and p_xsig, and whose struct thread has
 *         td_sa (the arguments of the system call under way). On FreeBSD 11 use consumer-11.d, on 9 and 10
 *         consumer-xstat.d.
 * Run     dtrace -s consumer.d PID > dtrace.txt 2> dtrace.err
 * Prints  B, T, C, X, A, a, N and M records, as wire.d defines them.
 * Tried   with the probes kevent_copyout and syscall::kevent on 13.2 and 15.1 (amd64): what it printed was equal, event by
 *         event, to what the process had received. The wildcards below, and with them 32-bit processes and those of
 *         FreeBSD 11 or older, were not tried on a running kernel.
 *
 * Every clause on a probe costs every process of the host, even if its predicate is false: one clause a probe, and a
 * predicate of pids alone. For several consumers the exporter writes the predicate anew.
 */
#pragma D option quiet
#pragma D option switchrate=10hz
#pragma D option statusrate=10hz
#pragma D option bufsize=8m

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
/* arg2 is NULL if the kernel registers the knote of a child (knote_fork): then the descriptor means nothing. */
fbt::kqueue_register:entry
/pid == $1/
{
	this->r = (struct kevent *)arg1;
	printf("A %d %d %d %d %d %p %d %d %x %x %p %d\n", timestamp, cpu, tid, arg2 != 0, (int)curthread->td_sa.args[0], arg0,
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
	    (int)curthread->td_sa.args[0], this->n,
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
	printf("M %d %d %d %d %d %d %d %d\n", timestamp, cpu, tid, (int)curthread->td_sa.args[0], (int)curthread->td_sa.args[4],
	    (int)arg1, errno, pid);
}
