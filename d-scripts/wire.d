/*
 * The one definition of what our D programs print: one probe for each kind of record, its fields in order.
 *
 * A record is a line: a letter, then the fields, one blank between them. Integers are printed in decimal (%d);
 * a field of a pointer type is printed in hexadecimal without 0x (%x). dtrace-parser reads this file, the
 * decoder's tables come from it, and a test holds every D program's printf against it.
 *
 *   letter probe     fields
 *   B      begin     timestamp (ns), walltimestamp (ns): the D program has started
 *   T      tick      timestamp, walltimestamp: heartbeat
 *   C      create    timestamp, cpu, child pid, forker's pid, child's p_pptr pid, rfork(2) flags
 *   X      exit      timestamp, cpu, pid, p_pptr pid, CLD_EXITED 1 | CLD_KILLED 2 | CLD_DUMPED 3, wait(2) status
 *   E      exec      timestamp, cpu, pid: exec succeeded
 *   F      execfail  timestamp, cpu, pid, errno
 *   M      mark      timestamp, cpu, timestamp at entry, nevents, events returned, errno: a kevent(2) call of the reader
 *   K      kevent    timestamp, cpu, pid, events returned: the same from a program that does not trace nevents
 *   R      regfail   timestamp, forker's pid, child pid, errno: kqueue_register failed inside knote_fork
 *   S      influx    timestamp, forker's pid, child pid: knote_fork skipped a knote that was in flux
 */
provider kqproc {
	probe begin(uint64_t, uint64_t);
	probe tick(uint64_t, uint64_t);
	probe create(uint64_t, uint32_t, int32_t, int32_t, int32_t, uint32_t*);
	probe exit(uint64_t, uint32_t, int32_t, int32_t, int32_t, uint32_t);
	probe exec(uint64_t, uint32_t, int32_t);
	probe execfail(uint64_t, uint32_t, int32_t, int32_t);
	probe mark(uint64_t, uint32_t, uint64_t, uint32_t, int32_t, int32_t);
	probe kevent(uint64_t, uint32_t, int32_t, int32_t);
	probe regfail(uint64_t, int32_t, int32_t, int32_t);
	probe influx(uint64_t, int32_t, int32_t);
};
