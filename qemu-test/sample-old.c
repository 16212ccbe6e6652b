// SPDX-License-Identifier: GPL-2.0
/*
 * Samples a VM as programs do that were written for the module kvm_ept_sample, of
 * whose description nothing but the calls is known here.
 *
 * sample-old PID XWR FREQ SECONDS: prints the memory slots, then a line for each
 * sample, then what is refused, and with which error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm_ept_sample.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

/* The error of a call that is to be refused; 0 if it is not. */
static int refusal(int fd, unsigned long command, unsigned long argument)
{
	return ioctl(fd, command, argument) ? errno : 0;
}

int main(int argc, char **argv)
{
	struct kvm_ept_sample_memslot slots[64];
	struct kvm_ept_sample_memslots memslots = { NULL, 0, 0 };
	struct kvm_ept_sample samples[64];
	int fd, second, pid, seconds;
	time_t end;

	if (argc != 5)
		return 2;
	pid = atoi(argv[1]);
	seconds = atoi(argv[4]);

	fd = open("/proc/kvm_ept_sample", O_RDWR);
	second = open("/proc/kvm_ept_sample", O_RDWR);
	if (fd < 0 || second < 0)
		return fail("open");
	printf("before INIT %d\n", refusal(fd, KVM_EPT_SAMPLE_CMD_SET_FREQ, 1));
	printf("no process %d\n", refusal(fd, KVM_EPT_SAMPLE_CMD_INIT, 4000000));
	printf("no VM %d\n", refusal(fd, KVM_EPT_SAMPLE_CMD_INIT, 1));

	if (ioctl(fd, KVM_EPT_SAMPLE_CMD_INIT, pid))
		return fail("INIT");
	printf("again %d\n", refusal(fd, KVM_EPT_SAMPLE_CMD_INIT, pid));
	printf("second %d\n", refusal(second, KVM_EPT_SAMPLE_CMD_INIT, pid));
	printf("unknown %d\n", refusal(fd, 1205, 0));

	if (ioctl(fd, KVM_EPT_SAMPLE_CMD_GET_MEMSLOTS, &memslots))
		return fail("GET_MEMSLOTS");
	printf("slots %zu\n", (size_t)memslots.count);
	memslots.memslots = slots;
	memslots.capacity = 64;
	if (ioctl(fd, KVM_EPT_SAMPLE_CMD_GET_MEMSLOTS, &memslots))
		return fail("GET_MEMSLOTS");
	for (size_t i = 0; i < memslots.count; i++)
		printf("slot %llx %llx %zx\n", (unsigned long long)slots[i].gpa,
		       (unsigned long long)slots[i].hva, (size_t)slots[i].page_count);

	if (ioctl(fd, KVM_EPT_SAMPLE_CMD_SET_PROT, atoi(argv[2])) ||
	    ioctl(fd, KVM_EPT_SAMPLE_CMD_SET_FREQ, atoi(argv[3])))
		return fail("SET_PROT, SET_FREQ");

	end = time(NULL) + seconds;
	while (time(NULL) < end) {
		/* A size that is no multiple of a sample's. */
		ssize_t len = read(fd, samples, sizeof(samples) - 1);

		if (len < 0)
			return fail("read");
		if (len % sizeof(samples[0]))
			return 1;
		for (size_t i = 0; i < len / sizeof(samples[0]); i++)
			printf("gfn = %x, xwr = %x\n", samples[i].gfn, samples[i].xwr);
		if (!len)
			usleep(10000);
	}
	if (ioctl(fd, KVM_EPT_SAMPLE_CMD_SET_FREQ, 0) ||
	    ioctl(fd, KVM_EPT_SAMPLE_CMD_DEINIT, NULL))
		return fail("DEINIT");
	printf("after DEINIT %d\n", refusal(fd, KVM_EPT_SAMPLE_CMD_SET_FREQ, 1));
	/* And once more. */
	if (ioctl(second, KVM_EPT_SAMPLE_CMD_INIT, pid))
		return fail("INIT");
	return 0;
}
