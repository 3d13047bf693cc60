/*
 * Every fork, exit and exec of the host, and a mark at every kevent(2) call of the kqueue reader.
 *
 * Needs   root, the dtraceall modules, FreeBSD 9.x or 10.x (struct proc has p_xstat). On 11 and later use proc.d.
 * Run     dtrace -s proc-xstat.d READER_PID; the exporter puts causes.d in front of it if that compiles
 * Prints  B, T, C, X, E, F and m records, as wire.d defines them.
 * Tried   on no running kernel of those releases. It differs from proc.d in the wait(2) status alone.
 *
 * All arguments are integers of 64 bits or fewer; a string would cost 256 bytes a record.
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
 * The reader calls getpriority(0x6b70, N) right before and getpriority(0x6b71, N) right after its kevent(2) call number N:
 * they fail and do nothing else. A probe of kevent(2) itself would slow down every process that calls it.
 */
syscall::getpriority:entry
/pid == $1/
{
	printf("m %d %d %d %d\n", timestamp, cpu, (int)arg0, (int)arg1);
}

/* A sign of life. The reader's marks come more often. */
tick-5s
{
	printf("T %d %d\n", timestamp, walltimestamp);
}
