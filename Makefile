# SPDX-License-Identifier: GPL-2.0
# The front door. Each target calls a script that does one thing and says more
# about it at its head; all of them need nothing but bash, make and, the first
# time, a network.

# Elapsed times count from here.
export KVMSCOPE_START := $(shell date +%s)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup kernel demo boot test test-full bench study study-wss selftests fuzz mutations deb tree clean variants programs

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## get the toolchain, the kernel source and Bochs; the others do so too, as needed
	@scripts/toolchain
	@scripts/fetch >/dev/null
	@scripts/bochs >/dev/null

kernel: ## patch and build the kernel that is L1's and L2's, and L1's programs
	@scripts/build
	@scripts/guest

demo: ## build what is not built, boot it, run a guest in it under QEMU and KVM, and show the guest's exits
	@qemu-test/demo

boot: kernel ## the same machine with a shell, and a guest in the background
	@qemu-test/run --l2

test: variants programs ## prove the tree
	@scripts/test

test-full: variants programs ## the same, and what takes longer: all of it, or what MINUTES=75 allow
	@scripts/test --full $(if $(MINUTES),--minutes $(MINUTES))

bench: variants programs ## instructions per exit: unpatched, compiled out, off, on
	@qemu-test/bench

study: ## exits of two boots, and what workloads lose to exits in one guest and in two
	@qemu-test/study

study-wss: ## a known working set as four estimators see it: written, written and read, sampled, idle pages
	@qemu-test/study-wss

selftests: variants programs ## the kernel's own KVM selftests, on unpatched KVM and on patched: a table
	@qemu-test/selftests

fuzz: ## foreign bytes for all that parses them, 20 s for each kind
	@scripts/fuzz

mutations: ## take out one safeguard after the other, and see that a test notices
	@qemu-test/mutate

deb: ## Debian packages for a real machine, from its configuration or CONFIG=FILE
	@scripts/deb

tree: ## build/tree: a git checkout of the kernel, the series as commits
	@scripts/tree

clean: ## remove build/; toolchain and downloads stay in the cache
	rm -rf build

variants:
	@scripts/build all

programs:
	@scripts/guest
