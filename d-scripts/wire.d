/*
 * The one definition of what our D programs print: one probe for each kind of record, its fields in order.
 *
 * A record is a line: a letter, then the fields, one blank between them. Integers are printed in decimal (%d);
 * a field of a pointer type is printed in hexadecimal without 0x (%x). dtrace prints %d of an unsigned type unsigned. dtrace-parser reads this file, the
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
 *   c      causes    timestamp: R and S are traced; comes right before the B of the program
 *   m      callmark  timestamp, cpu, 27504 right before or 27505 right after a kevent(2) call of the reader, its number
 *
 * Records of consumers. The last field is the consumer's pid; a program that watches only one may leave it out.
 *   A      register  timestamp, cpu, tid, 1 by the consumer or 0 by the kernel (knote_fork), kqueue's descriptor (no meaning
 *                    for 0), kqueue's address, ident, filter (-5 EVFILT_PROC), flags, fflags, udata, pid
 *   a      regdone   timestamp, cpu, tid, errno, pid: what the last A of this thread came to
 *   N      copyout   timestamp, cpu, tid, kqueue's descriptor, events copied out (at most 8), then always eight times
 *                    ident, filter, flags, fflags, data (0 beyond that many), then pid
 *   M      call      timestamp, cpu, tid, kqueue's descriptor, nevents, events returned (-1: failed), errno, pid: a
 *                    kevent(2) call of a consumer. It has more fields than the M of a mark.
 *
 * Sums that consumers.d prints at its end, besides B and T. They come from aggregations: a sum is a uint64_t, printed with %@d,
 * and the last field is text (%s), which may have blanks in it.
 *   U      registered  pid, fflags, registrations with them, name of the process
 *   G      received    pid, events of EVFILT_PROC that it got, name of the process
 *
 * kernel.d prints one line and ends: it is no record, and not read together with records.
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
	probe causes(uint64_t);
	probe callmark(uint64_t, uint32_t, int32_t, int32_t);
	probe register(uint64_t, uint32_t, int32_t, int32_t, int32_t, uint64_t*, uint64_t, int16_t, uint16_t*, uint32_t*,
	    uint64_t*, int32_t);
	probe regdone(uint64_t, uint32_t, int32_t, int32_t, int32_t);
	probe copyout(uint64_t, uint32_t, int32_t, int32_t, int32_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    uint64_t, int16_t, uint16_t*, uint32_t*, int64_t,
	    int32_t);
	probe call(uint64_t, uint32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t);
};

provider kqproc_survey {
	probe registered(int32_t, uint32_t*, uint64_t, char*);
	probe received(int32_t, uint64_t, char*);
};
