/*
 * Which kernel this is, by its own variables, for a host on which nothing but dtrace(1) runs.
 *
 * Needs   root and the dtraceall modules
 * Run     dtrace -s kernel.d
 * Prints  K osreldate osrelease, and ends
 * Tried   on no running kernel. By the source of 9.3 and 13.2 both variables have their types (newvers.sh makes them,
 *         kern.post.mk gives vers.o its CTF). If they cannot be read, the release is not known, and nothing else changes.
 */
#pragma D option quiet

BEGIN
{
	printf("K %d %s\n", `osreldate, stringof(`osrelease));
	exit(0);
}
