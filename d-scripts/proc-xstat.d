/*
 * The truth: every fork, exit and exec of the host, and every kevent(2) call of the kqueue reader.
 *
 * Needs   root, the dtraceall modules, FreeBSD 9.x or 10.x (struct proc has p_xstat). On 11 and later use proc.d.
 * Run     dtrace -s proc-xstat.d READER_PID KQUEUE_DESCRIPTOR
 * Prints  B, T, C, X, E, F and M records, as wire.d defines them.
 *
 * The reader's calls are told apart by their descriptor: other threads of its process call kevent(2) as well. All
 * arguments are integers of 64 bits or fewer; a string would cost 256 bytes a record.
 */
#pragma D option quiet
#pragma D option switchrate=10hz
#pragma D option statusrate=10hz
#pragma D option bufsize=8m

BEGIN
{
	printf("B %d %d\n", timestamp, walltimestamp);
}

/* The child may run already: its own records may come first. Forks by the kernel itself are left out. */
proc:::create
/args[1]->p_pid != 0/
{
	printf("C %d %d %d %d %d %x\n", timestamp, cpu, args[0]->p_pid, args[1]->p_pid, args[0]->p_pptr->p_pid, args[2]);
}

/* The wait(2) status is final here, on every release. */
proc:::exit
{
	printf("X %d %d %d %d %d %d\n", timestamp, cpu, pid, ppid, args[0], curthread->td_proc->p_xstat);
}

proc:::exec-success
{
	printf("E %d %d %d\n", timestamp, cpu, pid);
}

proc:::exec-failure
{
	printf("F %d %d %d %d\n", timestamp, cpu, pid, args[0]);
}

/*
 * arg0 is the kqueue, arg4 is nevents, which names the call and is never 0. Only the reader's thread has these
 * variables, and each of its calls sets them again. They are not set back to 0: a variable that is freed cannot be
 * used again before the next clock tick, and a kernel that shares dynvarsize out to MAXCPU CPUs (13.2, 12.3
 * dtrace.c:14382) has room for 29 on each.
 */
syscall::kevent:entry
/pid == $1 && (int)arg0 == $2/
{
	self->entered = timestamp;
	self->nevents = (int)arg4;
}

syscall::kevent:return
/self->nevents/
{
	printf("M %d %d %d %d %d %d\n", timestamp, cpu, self->entered, self->nevents, (int)arg1, errno);
}

tick-10hz
{
	printf("T %d %d\n", timestamp, walltimestamp);
}
