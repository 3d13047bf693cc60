/*
 * Why kqueue lost a process: what happened inside knote_fork(), seen by fbt.
 *
 * Needs   FreeBSD 12 or later (struct knote has kn_influx), and a kernel whose knote_fork and kqueue_register fbt can
 *         see. It is a part of a program: the exporter puts it in front of proc.d or proc-xstat.d. If that does not
 *         compile, it is not known which fork a NOTE_TRACKERR is about, nor why a process was lost.
 * Prints  c, R and S records, as wire.d defines them.
 * Tried   on 13.2 and 15.1 (amd64), but for the c record; on 12 and 14 on no running kernel.
 */
/* A fork takes a variable for a clock tick; on 13.2 a CPU has a 256th of this for that. */
#pragma D option dynvarsize=4m

/* Before the B of the program. */
BEGIN
{
	printf("c %d\n", timestamp);
}

/* Somebody watches the forker. */
fbt::knote_fork:entry
/arg0 != 0 && ((struct knlist *)arg0)->kl_list.slh_first != NULL/
{
	self->child = (int)arg1;
}

/* A knote of the forker could not be given to the child: NOTE_TRACKERR. 12 ENOMEM, 3 ESRCH, 9 EBADF. */
fbt::kqueue_register:return
/self->child && (int)arg1 != 0/
{
	printf("R %d %d %d %d\n", timestamp, pid, self->child, (int)arg1);
}

/*
 * The first knote of the forker tracks (NOTE_TRACK 0x1), is in flux, and is not just being scanned (KN_SCAN 0x100):
 * knote_fork passes over it and says nothing. arg0 is cast because the type that fbt gives it is wrong in some builds.
 */
fbt::knote_fork:entry
/arg0 != 0 && ((struct knlist *)arg0)->kl_list.slh_first != NULL &&
    ((struct knlist *)arg0)->kl_list.slh_first->kn_influx > 0 &&
    (((struct knlist *)arg0)->kl_list.slh_first->kn_sfflags & 0x1) != 0 &&
    (((struct knlist *)arg0)->kl_list.slh_first->kn_status & 0x100) == 0/
{
	printf("S %d %d %d\n", timestamp, pid, (int)arg1);
}

fbt::knote_fork:return
/self->child/
{
	self->child = 0;
}
